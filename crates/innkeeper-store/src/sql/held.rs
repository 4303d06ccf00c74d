//! Table `temp.held_names`: names that a restore is about to give to guests and previews.
//!
//! It is a table of the connection, in memory: a crash releases all names.

use std::collections::BTreeSet;

use innkeeper_model::GuestName;
use rusqlite::Connection;

use crate::codec::{Columns, Text};
use crate::error::{QueryError, StoreError};
use crate::sql;

/// Creates the table. For each new connection.
pub(crate) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("CREATE TEMP TABLE held_names (name TEXT NOT NULL PRIMARY KEY)")
}

pub(crate) fn hold(connection: &Connection, name: &GuestName) -> Result<(), QueryError> {
    let insert = "INSERT OR IGNORE INTO temp.held_names (name) VALUES (?1)";
    connection.prepare_cached(insert)?.execute([Text(name)])?;
    Ok(())
}

pub(crate) fn release(connection: &Connection, name: &GuestName) -> Result<(), QueryError> {
    let delete = "DELETE FROM temp.held_names WHERE name = ?1";
    connection.prepare_cached(delete)?.execute([Text(name)])?;
    Ok(())
}

pub(crate) fn list(connection: &Connection) -> Result<BTreeSet<GuestName>, QueryError> {
    let query = "SELECT name FROM temp.held_names";
    let names = sql::all(connection, query, (), |row| row.text("name"))?;
    Ok(names.into_iter().collect())
}

/// Reports whether a restore holds one of the names.
pub(crate) fn has_any(connection: &Connection, names: &[GuestName]) -> Result<bool, QueryError> {
    let query = "SELECT 1 FROM temp.held_names WHERE name = ?1";
    for name in names {
        if sql::exists(connection, query, [Text(name)])? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Fails with [`StoreError::NameHeld`] if a restore holds the name.
pub(crate) fn refuse(connection: &Connection, name: &GuestName) -> Result<(), QueryError> {
    match has_any(connection, std::slice::from_ref(name))? {
        false => Ok(()),
        true => Err(StoreError::NameHeld { name: name.clone() }.into()),
    }
}
