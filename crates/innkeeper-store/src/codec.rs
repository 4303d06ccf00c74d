//! Conversions between the model's values and columns.

use std::error::Error;

use innkeeper_model::{Code, EventKind, Failure};
use jiff::Timestamp;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};
use rusqlite::{Row, RowIndex, ToSql};
use serde::Serialize;
use serde::de::{DeserializeOwned, IntoDeserializer, value};

/// A value whose JSON is a string, stored without the quotes: names, paths, and enums without fields.
pub(crate) struct Text<T>(pub(crate) T);

impl<T: Serialize> ToSql for Text<T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match serde_json::to_value(&self.0).map_err(unwritable)? {
            serde_json::Value::String(text) => Ok(text.into()),
            other => Err(unwritable(format!("{other} is not a string"))),
        }
    }
}

impl<T: DeserializeOwned> FromSql for Text<T> {
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

/// A number assigned by GitHub. SQLite's integers are signed; GitHub assigns no number that does not fit.
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
    /// The present in whole microseconds, so that a returned record equals the one that is read back later.
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

/// Reads the columns of a row as values of the model. `opt_` methods read NULL as `None`.
pub(crate) trait Columns {
    fn text<T: DeserializeOwned>(&self, column: impl RowIndex) -> rusqlite::Result<T>;
    fn opt_text<T: DeserializeOwned>(&self, column: &str) -> rusqlite::Result<Option<T>>;
    fn json<T: DeserializeOwned>(&self, column: &str) -> rusqlite::Result<T>;
    fn opt_json<T: DeserializeOwned>(&self, column: &str) -> rusqlite::Result<Option<T>>;
    fn number(&self, column: impl RowIndex) -> rusqlite::Result<u64>;
    fn opt_number(&self, column: &str) -> rusqlite::Result<Option<u64>>;
    fn time(&self, column: &str) -> rusqlite::Result<Timestamp>;
    fn opt_time(&self, column: &str) -> rusqlite::Result<Option<Timestamp>>;
    /// Reads a failure. One with a code that only a newer version has keeps its text: a host that was
    /// rolled back to an older version must still be able to list its guests.
    fn opt_failure(&self, column: &str) -> rusqlite::Result<Option<Failure>>;
    /// Reads an event. One of a newer version becomes a note, for the same reason.
    fn event_kind(&self, column: &str) -> rusqlite::Result<EventKind>;
}

impl Columns for Row<'_> {
    fn text<T: DeserializeOwned>(&self, column: impl RowIndex) -> rusqlite::Result<T> {
        self.get(column).map(|Text(value)| value)
    }

    fn opt_text<T: DeserializeOwned>(&self, column: &str) -> rusqlite::Result<Option<T>> {
        let value: Option<Text<T>> = self.get(column)?;
        Ok(value.map(|Text(value)| value))
    }

    fn json<T: DeserializeOwned>(&self, column: &str) -> rusqlite::Result<T> {
        self.get(column).map(|Json(value)| value)
    }

    fn opt_json<T: DeserializeOwned>(&self, column: &str) -> rusqlite::Result<Option<T>> {
        let value: Option<Json<T>> = self.get(column)?;
        Ok(value.map(|Json(value)| value))
    }

    fn number(&self, column: impl RowIndex) -> rusqlite::Result<u64> {
        self.get(column).map(|Number(value)| value)
    }

    fn opt_number(&self, column: &str) -> rusqlite::Result<Option<u64>> {
        let value: Option<Number> = self.get(column)?;
        Ok(value.map(|Number(value)| value))
    }

    fn time(&self, column: &str) -> rusqlite::Result<Timestamp> {
        self.get(column).map(|Time(value)| value)
    }

    fn opt_time(&self, column: &str) -> rusqlite::Result<Option<Timestamp>> {
        let value: Option<Time> = self.get(column)?;
        Ok(value.map(|Time(value)| value))
    }

    fn opt_failure(&self, column: &str) -> rusqlite::Result<Option<Failure>> {
        let json: Option<String> = self.get(column)?;
        Ok(json.as_deref().map(failure))
    }

    fn event_kind(&self, column: &str) -> rusqlite::Result<EventKind> {
        self.get(column).map(event_kind)
    }
}

fn failure(json: &str) -> Failure {
    serde_json::from_str(json).unwrap_or_else(|_| Failure::new(Code::Internal, json))
}

fn event_kind(json: String) -> EventKind {
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
    fn failure_of_a_newer_version_keeps_its_text() {
        let known = Failure::new(Code::DiskFull, "full").with_remedy("free space");
        let json = serde_json::to_string(&known).expect("serializes");
        assert_eq!(failure(&json), known);

        let newer = failure(r#"{"code":"moon_phase","message":"the moon is full"}"#);
        assert_eq!(newer.code, Code::Internal);
        assert!(newer.message.contains("the moon is full"));
    }

    #[test]
    fn event_of_a_newer_version_becomes_a_note() {
        let EventKind::Note { text } = event_kind(r#"{"event":"slept","hours":8}"#.to_owned())
        else {
            panic!("not a note");
        };
        assert!(text.contains("slept"));
    }
}
