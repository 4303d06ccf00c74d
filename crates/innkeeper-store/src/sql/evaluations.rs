//! Table `evaluations`: the results of evaluating and building previews' configurations.

use innkeeper_model::StorePath;
use innkeeper_model::preview::Meta;
use jiff::Timestamp;
use rusqlite::{Connection, Row, Transaction};

use crate::clock::RunningTime;
use crate::codec::{Columns, Json, Text, Time};
use crate::error::QueryError;
use crate::sql;

/// The result of evaluating and building a preview's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// The hash of everything that the result depends on.
    pub key: String,
    /// The closure.
    pub closure: StorePath,
    /// The meta.
    pub meta: Meta,
    /// Time of the build.
    pub built_at: Timestamp,
    /// Time of the last lookup.
    pub used_at: Timestamp,
}

/// Returns an evaluation and records that it was used.
pub(crate) fn touch(
    transaction: &Transaction<'_>,
    key: &str,
) -> Result<Option<Evaluation>, QueryError> {
    sql::first(
        transaction,
        "UPDATE evaluations
         SET used_at = ?2, used_running = (SELECT micros FROM running_time)
         WHERE key = ?1 RETURNING *",
        (key, Time::now()),
        read,
    )
}

pub(crate) fn replace(
    transaction: &Transaction<'_>,
    key: &str,
    closure: &StorePath,
    meta: &Meta,
) -> Result<(), QueryError> {
    sql::execute(
        transaction,
        "INSERT OR REPLACE INTO evaluations
         (key, closure, meta, built_at, used_at, used_running)
         VALUES (?1, ?2, ?3, ?4, ?4, (SELECT micros FROM running_time))",
        (key, Text(closure), Json(meta), Time::now()),
    )?;
    Ok(())
}

/// Deletes the evaluations that were last used before `expired_before` and that no preview desires or serves.
pub(crate) fn delete_unused(
    transaction: &Transaction<'_>,
    expired_before: RunningTime,
) -> Result<Vec<Evaluation>, QueryError> {
    sql::all(
        transaction,
        "DELETE FROM evaluations
         WHERE used_running < ?1 AND NOT EXISTS (
             SELECT 1 FROM previews
             WHERE evaluation = evaluations.key OR live_closure = evaluations.closure)
         RETURNING *",
        [expired_before],
        read,
    )
}

pub(crate) fn list(connection: &Connection) -> Result<Vec<Evaluation>, QueryError> {
    sql::all(
        connection,
        "SELECT * FROM evaluations ORDER BY key",
        (),
        read,
    )
}

fn read(row: &Row<'_>) -> rusqlite::Result<Evaluation> {
    Ok(Evaluation {
        key: row.get("key")?,
        closure: row.text("closure")?,
        meta: row.json("meta")?,
        built_at: row.time("built_at")?,
        used_at: row.time("used_at")?,
    })
}
