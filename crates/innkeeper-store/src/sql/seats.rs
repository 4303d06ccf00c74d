//! Table `seats`.

use innkeeper_model::{GuestName, Slot, StorePath};
use rusqlite::{Connection, Row, Transaction};

use crate::codec::{Columns, Text};
use crate::error::QueryError;
use crate::sql;

/// A guest without a name, which waits until a new guest takes its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Its slot, which is part of its name.
    pub slot: Slot,
    /// The closure that it has booted; `None` if it waits at its door.
    pub closure: Option<StorePath>,
    /// A guest can take it.
    pub ready: bool,
    /// The guest that has taken it.
    pub guest: Option<GuestName>,
}

impl Seat {
    const COLUMNS: &str = "SELECT slot, closure, ready, guest FROM seats";

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            slot: Slot::new(row.get("slot")?),
            closure: row.opt_text("closure")?,
            ready: row.get("ready")?,
            guest: row.opt_text("guest")?,
        })
    }
}

pub(crate) fn insert(
    transaction: &Transaction<'_>,
    slot: Slot,
    closure: Option<&StorePath>,
) -> Result<(), QueryError> {
    let insert = "INSERT INTO seats (slot, closure) VALUES (?1, ?2)";
    sql::execute(transaction, insert, (slot.number(), closure.map(Text)))?;
    Ok(())
}

pub(crate) fn list(connection: &Connection) -> Result<Vec<Seat>, QueryError> {
    let query = format!("{} ORDER BY slot", Seat::COLUMNS);
    sql::all(connection, &query, (), Seat::read)
}

/// Reports whether a seat has this name.
pub(crate) fn has(connection: &Connection, name: &GuestName) -> Result<bool, QueryError> {
    let query = "SELECT 1 FROM seats WHERE '0-door-' || slot = ?1";
    sql::exists(connection, query, [Text(name)])
}

/// Reports whether a guest, a preview or retained files have this name: it was not always reserved.
pub(crate) fn is_used(connection: &Connection, name: &GuestName) -> Result<bool, QueryError> {
    let query = "SELECT 1 FROM guests WHERE name = ?1
         UNION ALL SELECT 1 FROM previews WHERE slug = ?1
         UNION ALL SELECT 1 FROM retained WHERE name = ?1";
    sql::exists(connection, query, [Text(name)])
}

/// Sets whether a guest can take the seat. Reports whether the seat exists and is free.
pub(crate) fn set_ready(
    transaction: &Transaction<'_>,
    slot: Slot,
    ready: bool,
) -> Result<bool, QueryError> {
    let update = "UPDATE seats SET ready = ?2 WHERE slot = ?1 AND guest IS NULL";
    Ok(sql::execute(transaction, update, (slot.number(), ready))? > 0)
}

/// Lets no guest take a seat that is free.
pub(crate) fn retire(transaction: &Transaction<'_>) -> Result<(), QueryError> {
    let update = "UPDATE seats SET ready = 0 WHERE guest IS NULL";
    sql::execute(transaction, update, ())?;
    Ok(())
}

/// Gives a seat that is ready to a guest, which must be inserted in the same transaction: one that has booted the closure, or
/// without `closure` one at its door. Returns its slot.
pub(crate) fn take(
    transaction: &Transaction<'_>,
    guest: &GuestName,
    closure: Option<&StorePath>,
) -> Result<Option<Slot>, QueryError> {
    let update = "UPDATE seats SET guest = ?1
         WHERE slot = (SELECT min(slot) FROM seats WHERE guest IS NULL AND ready AND closure IS ?2)
         RETURNING slot";
    sql::first(
        transaction,
        update,
        (Text(guest), closure.map(Text)),
        |row| row.get(0).map(Slot::new),
    )
}

/// Returns the seat that a guest has taken.
pub(crate) fn of(connection: &Connection, guest: &GuestName) -> Result<Option<Seat>, QueryError> {
    let query = format!("{} WHERE guest = ?1", Seat::COLUMNS);
    sql::first(connection, &query, [Text(guest)], Seat::read)
}

/// Deletes the seat that a guest has taken. The slot stays the guest's.
pub(crate) fn leave(transaction: &Transaction<'_>, guest: &GuestName) -> Result<(), QueryError> {
    let delete = "DELETE FROM seats WHERE guest = ?1";
    sql::execute(transaction, delete, [Text(guest)])?;
    Ok(())
}

/// Deletes a seat that no guest has taken. Reports whether there was one.
pub(crate) fn delete(transaction: &Transaction<'_>, slot: Slot) -> Result<bool, QueryError> {
    let delete = "DELETE FROM seats WHERE slot = ?1 AND guest IS NULL";
    Ok(sql::execute(transaction, delete, [slot.number()])? > 0)
}
