//! Table `stale_secrets`.

use innkeeper_model::GuestName;
use innkeeper_model::preview::EnvName;
use rusqlite::{Connection, Row, Transaction};

use crate::codec::{Columns, Text};
use crate::error::QueryError;
use crate::sql;

/// A secret of which a preview's guest has a former value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaleSecret {
    /// The number of the change.
    pub seq: i64,
    /// The preview.
    pub slug: GuestName,
    /// The secret's name.
    pub name: EnvName,
}

fn read(row: &Row<'_>) -> rusqlite::Result<StaleSecret> {
    Ok(StaleSecret {
        seq: row.get("seq")?,
        slug: row.text("slug")?,
        name: row.text("name")?,
    })
}

/// Adds a row with a new number, unless the preview is gone.
pub(crate) fn add(
    transaction: &Transaction<'_>,
    slug: &GuestName,
    name: &EnvName,
) -> Result<(), QueryError> {
    let insert = "INSERT OR REPLACE INTO stale_secrets (slug, name)
         SELECT slug, ?2 FROM previews WHERE slug = ?1";
    sql::execute(transaction, insert, (Text(slug), Text(name)))?;
    Ok(())
}

/// Returns all rows, by preview and name.
pub(crate) fn list(connection: &Connection) -> Result<Vec<StaleSecret>, QueryError> {
    let query = "SELECT * FROM stale_secrets ORDER BY slug, name";
    sql::all(connection, query, (), read)
}

/// Returns the number of the last change of a preview's secrets, or 0.
pub(crate) fn last(connection: &Connection, slug: &GuestName) -> Result<i64, QueryError> {
    let query = "SELECT coalesce(max(seq), 0) FROM stale_secrets WHERE slug = ?1";
    sql::one(connection, query, [Text(slug)], |row| row.get(0))
}

/// Deletes the rows of a preview up to a number.
pub(crate) fn delete(
    transaction: &Transaction<'_>,
    slug: &GuestName,
    last: i64,
) -> Result<(), QueryError> {
    let delete = "DELETE FROM stale_secrets WHERE slug = ?1 AND seq <= ?2";
    sql::execute(transaction, delete, (Text(slug), last))?;
    Ok(())
}
