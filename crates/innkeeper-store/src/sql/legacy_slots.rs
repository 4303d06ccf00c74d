//! Table `legacy_slots`: reservations of an older installation.

use rusqlite::{Connection, Transaction};

use crate::error::QueryError;
use crate::legacy::Reservation;
use crate::sql;

/// A slot that a guest and an older installation both use.
pub(crate) struct SharedSlot {
    pub(crate) slot: u32,
    pub(crate) guest: String,
    pub(crate) source: String,
}

pub(crate) fn list(connection: &Connection) -> Result<Vec<Reservation>, QueryError> {
    let query = "SELECT slot, source FROM legacy_slots ORDER BY slot, source";
    sql::all(connection, query, (), |row| Ok((row.get(0)?, row.get(1)?)))
}

pub(crate) fn replace_all(
    transaction: &Transaction<'_>,
    reservations: &[Reservation],
) -> Result<(), QueryError> {
    sql::execute(transaction, "DELETE FROM legacy_slots", ())?;
    for (slot, source) in reservations {
        let insert = "INSERT OR IGNORE INTO legacy_slots (slot, source) VALUES (?1, ?2)";
        sql::execute(transaction, insert, (slot, source))?;
    }
    Ok(())
}

/// Returns the reserved slots that guests have too.
pub(crate) fn shared_with_guests(connection: &Connection) -> Result<Vec<SharedSlot>, QueryError> {
    sql::all(
        connection,
        "SELECT slot, name, legacy_slots.source FROM guests JOIN legacy_slots USING (slot)
         ORDER BY slot",
        (),
        |row| {
            Ok(SharedSlot {
                slot: row.get(0)?,
                guest: row.get(1)?,
                source: row.get(2)?,
            })
        },
    )
}
