//! Table `snapshots`.

use innkeeper_model::{GuestName, Snapshot, SnapshotLabel};
use rusqlite::{Connection, Row, Transaction};

use crate::codec::{Columns, Text, Time};
use crate::error::{QueryError, StoreError};
use crate::sql;

/// Fails when the guest has no such snapshot.
pub(crate) fn require(
    connection: &Connection,
    guest: &GuestName,
    label: &SnapshotLabel,
) -> Result<(), QueryError> {
    if exists(connection, guest, label)? {
        return Ok(());
    }
    let (guest, label) = (guest.clone(), label.clone());
    Err(StoreError::SnapshotNotFound { guest, label }.into())
}

pub(crate) fn exists(
    connection: &Connection,
    guest: &GuestName,
    label: &SnapshotLabel,
) -> Result<bool, QueryError> {
    let query = "SELECT 1 FROM snapshots WHERE guest = ?1 AND label = ?2";
    sql::exists(connection, query, (Text(guest), Text(label)))
}

pub(crate) fn insert(
    transaction: &Transaction<'_>,
    guest: &GuestName,
    label: &SnapshotLabel,
) -> Result<(), QueryError> {
    sql::execute(
        transaction,
        "INSERT INTO snapshots (guest, label, created_at) VALUES (?1, ?2, ?3)",
        (Text(guest), Text(label), Time::now()),
    )?;
    Ok(())
}

pub(crate) fn delete(
    transaction: &Transaction<'_>,
    guest: &GuestName,
    label: &SnapshotLabel,
) -> Result<(), QueryError> {
    sql::execute(
        transaction,
        "DELETE FROM snapshots WHERE guest = ?1 AND label = ?2",
        (Text(guest), Text(label)),
    )?;
    Ok(())
}

pub(crate) fn list(connection: &Connection) -> Result<Vec<Snapshot>, QueryError> {
    let query = "SELECT * FROM snapshots ORDER BY guest, created_at, label";
    sql::all(connection, query, (), read)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Snapshot> {
    Ok(Snapshot {
        guest: row.text("guest")?,
        label: row.text("label")?,
        created_at: row.time("created_at")?,
    })
}
