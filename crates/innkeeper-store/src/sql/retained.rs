//! Table `retained`: files of destroyed agents.
//!
//! A row exists from the intent to destroy an agent until its files are gone or belong to an agent again. `guest` names
//! the guest that still has the files (being destroyed) or has them again (being undeleted); such a row is neither listed
//! nor removed. A `doomed` row is removed as soon as it names no guest; it cannot be undeleted.

use innkeeper_model::{Guest, GuestName, OperationId, Retained, RetainedId};
use rusqlite::{Connection, Row, Transaction, named_params};

use crate::clock::RunningTime;
use crate::codec::{Columns, Json, Text, Time};
use crate::error::QueryError;
use crate::sql;

/// Retained files of a destroyed agent, with the daemon's own columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetainedFiles {
    /// The destroyed agent.
    pub record: Retained,
    /// The running time at which retention began.
    pub since: RunningTime,
    /// The operation that removes the files, if one has begun.
    pub operation: Option<OperationId>,
}

/// Inserts a row for a guest that is about to be destroyed and returns its number.
pub(crate) fn insert(
    transaction: &Transaction<'_>,
    guest: &Guest,
    now: RunningTime,
) -> Result<RetainedId, QueryError> {
    sql::one(
        transaction,
        "INSERT INTO retained
             (name, source, closure, limits, created_at, destroyed_at, destroyed_running, guest)
         VALUES (:name, :source, :closure, :limits, :created_at, :now, :running, :name)
         RETURNING id",
        named_params! {
            ":name": Text(&guest.name),
            ":source": Json(&guest.source),
            ":closure": guest.closure.as_ref().map(Text),
            ":limits": Json(&guest.limits),
            ":created_at": Time(guest.created_at),
            ":now": Time::now(),
            ":running": now,
        },
        |row| row.get(0).map(RetainedId),
    )
}

/// Detaches the files from a guest that is about to be deleted. Retention begins now.
pub(crate) fn release(
    transaction: &Transaction<'_>,
    guest: &GuestName,
    now: RunningTime,
) -> Result<(), QueryError> {
    sql::execute(
        transaction,
        "UPDATE retained SET guest = NULL, destroyed_at = ?2, destroyed_running = ?3 WHERE guest = ?1",
        (Text(guest), Time::now(), now),
    )?;
    Ok(())
}

/// Attaches the files to the guest that is to take them over.
pub(crate) fn attach(
    transaction: &Transaction<'_>,
    id: RetainedId,
    guest: &GuestName,
) -> Result<(), QueryError> {
    let update = "UPDATE retained SET guest = ?2 WHERE id = ?1";
    sql::execute(transaction, update, (id.0, Text(guest)))?;
    Ok(())
}

/// Marks the files of a guest for removal.
pub(crate) fn doom_files_of(
    transaction: &Transaction<'_>,
    guest: &GuestName,
) -> Result<(), QueryError> {
    let update = "UPDATE retained SET doomed = 1 WHERE guest = ?1";
    sql::execute(transaction, update, [Text(guest)])?;
    Ok(())
}

/// Deletes the row of the files that a guest has taken over.
pub(crate) fn delete_files_of(
    transaction: &Transaction<'_>,
    guest: &GuestName,
) -> Result<(), QueryError> {
    let delete = "DELETE FROM retained WHERE guest = ?1";
    sql::execute(transaction, delete, [Text(guest)])?;
    Ok(())
}

/// Marks files for removal by an operation.
pub(crate) fn begin_removal(
    transaction: &Transaction<'_>,
    id: RetainedId,
    operation: OperationId,
) -> Result<(), QueryError> {
    let update = "UPDATE retained SET doomed = 1, operation = ?2 WHERE id = ?1";
    sql::execute(transaction, update, (id.0, operation.0))?;
    Ok(())
}

/// Deletes the row of the files that an operation removed or, if it failed, leaves them to another operation.
pub(crate) fn end_removal(
    transaction: &Transaction<'_>,
    operation: OperationId,
    failed: bool,
) -> Result<(), QueryError> {
    let statement = match failed {
        false => "DELETE FROM retained WHERE operation = ?1",
        true => "UPDATE retained SET operation = NULL WHERE operation = ?1",
    };
    sql::execute(transaction, statement, [operation.0])?;
    Ok(())
}

pub(crate) fn set_bytes(
    transaction: &Transaction<'_>,
    id: RetainedId,
    bytes: u64,
) -> Result<(), QueryError> {
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    let update = "UPDATE retained SET bytes = ?2 WHERE id = ?1";
    sql::execute(transaction, update, (id.0, bytes))?;
    Ok(())
}

/// Returns the files with this number, unless a guest has them.
pub(crate) fn find(
    connection: &Connection,
    id: RetainedId,
) -> Result<Option<RetainedFiles>, QueryError> {
    let query = "SELECT * FROM retained WHERE id = ?1 AND guest IS NULL";
    sql::first(connection, query, [id.0], read)
}

/// Returns the files that no guest has, the oldest first.
pub(crate) fn list(connection: &Connection) -> Result<Vec<RetainedFiles>, QueryError> {
    let query = "SELECT * FROM retained WHERE guest IS NULL ORDER BY id";
    sql::all(connection, query, (), read)
}

/// Returns the numbers of all rows, including those of files that a guest has.
pub(crate) fn ids(connection: &Connection) -> Result<Vec<RetainedId>, QueryError> {
    sql::all(connection, "SELECT id FROM retained", (), |row| {
        row.get(0).map(RetainedId)
    })
}

fn read(row: &Row<'_>) -> rusqlite::Result<RetainedFiles> {
    let bytes: Option<i64> = row.get("bytes")?;
    let operation: Option<i64> = row.get("operation")?;
    Ok(RetainedFiles {
        record: Retained {
            id: RetainedId(row.get("id")?),
            name: row.text("name")?,
            source: row.json("source")?,
            closure: row.opt_text("closure")?,
            limits: row.json("limits")?,
            created_at: row.time("created_at")?,
            destroyed_at: row.time("destroyed_at")?,
            bytes: bytes.and_then(|bytes| u64::try_from(bytes).ok()),
            removing: row.get("doomed")?,
        },
        since: row.get("destroyed_running")?,
        operation: operation.map(OperationId),
    })
}
