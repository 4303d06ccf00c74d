//! How values of the model are written into columns and read back.

use std::error::Error;

use innkeeper_model::{Code, EventKind, Failure};
use jiff::Timestamp;
use rusqlite::ToSql;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};
use serde::Serialize;
use serde::de::{DeserializeOwned, IntoDeserializer, value};

/// A value whose JSON is a string, stored without the quotes: names, paths, and enums without fields.
pub(crate) struct Word<T>(pub(crate) T);

impl<T: Serialize> ToSql for Word<T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match serde_json::to_value(&self.0).map_err(unwritable)? {
            serde_json::Value::String(text) => Ok(text.into()),
            other => Err(unwritable(format!("{other} is not a word"))),
        }
    }
}

impl<T: DeserializeOwned> FromSql for Word<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text: value::StrDeserializer<'_, value::Error> = value.as_str()?.into_deserializer();
        T::deserialize(text).map(Self).map_err(unreadable)
    }
}

/// A value stored as JSON.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: Serialize> ToSql for Json<T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let text = serde_json::to_string(&self.0).map_err(unwritable)?;
        Ok(text.into())
    }
}

impl<T: DeserializeOwned> FromSql for Json<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        serde_json::from_str(value.as_str()?)
            .map(Self)
            .map_err(unreadable)
    }
}

/// A number of GitHub's. SQLite's integers have a sign; what does not fit is no number that GitHub gives out.
pub(crate) struct Number(pub(crate) u64);

impl ToSql for Number {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(i64::try_from(self.0).map_err(unwritable)?.into())
    }
}

impl FromSql for Number {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        u64::try_from(value.as_i64()?).map(Self).map_err(unreadable)
    }
}

/// A point in time, stored as microseconds since 1970-01-01T00:00:00Z.
pub(crate) struct Time(pub(crate) Timestamp);

impl Time {
    /// The present, in whole microseconds, so that what is returned is what is read back later.
    pub(crate) fn now() -> Self {
        let now = Timestamp::now();
        Self(Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now))
    }
}

impl ToSql for Time {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.as_microsecond().into())
    }
}

impl FromSql for Time {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Timestamp::from_microsecond(value.as_i64()?)
            .map(Self)
            .map_err(unreadable)
    }
}

/// Reads a failure. One with a code that only a newer version knows keeps its text: a host that was
/// rolled back to an older version must still be able to list its guests.
pub(crate) fn failure(json: &str) -> Failure {
    serde_json::from_str(json).unwrap_or_else(|_| Failure::new(Code::Internal, json))
}

/// Reads what happened. What only a newer version knows becomes a note, for the reason of [`failure`].
pub(crate) fn event_kind(json: String) -> EventKind {
    serde_json::from_str(&json).unwrap_or(EventKind::Note { text: json })
}

fn unwritable(error: impl Into<Box<dyn Error + Send + Sync>>) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(error.into())
}

fn unreadable(error: impl Error + Send + Sync + 'static) -> FromSqlError {
    FromSqlError::other(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_a_newer_version_keeps_its_text() {
        let known = Failure::new(Code::DiskFull, "full").with_remedy("free space");
        let json = serde_json::to_string(&known).expect("serialises");
        assert_eq!(failure(&json), known);

        let newer = failure(r#"{"code":"moon_phase","message":"the moon is full"}"#);
        assert_eq!(newer.code, Code::Internal);
        assert!(newer.message.contains("the moon is full"));
    }

    #[test]
    fn an_event_of_a_newer_version_becomes_a_note() {
        let EventKind::Note { text } = event_kind(r#"{"event":"slept","hours":8}"#.to_owned())
        else {
            panic!("not a note");
        };
        assert!(text.contains("slept"));
    }
}
