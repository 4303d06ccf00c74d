//! Table `closures`: the store paths that flake outputs were built to.

use innkeeper_model::api::CachedClosure;
use innkeeper_model::{Installable, StorePath};
use rusqlite::{Connection, Row, Transaction};

use crate::codec::{Columns, Text, Time};
use crate::error::QueryError;
use crate::sql;

pub(crate) fn find(
    connection: &Connection,
    installable: &Installable,
) -> Result<Option<CachedClosure>, QueryError> {
    let query = "SELECT * FROM closures WHERE installable = ?1";
    sql::first(connection, query, [Text(installable)], read)
}

pub(crate) fn replace(
    transaction: &Transaction<'_>,
    installable: &Installable,
    closure: &StorePath,
    fingerprint: &str,
) -> Result<(), QueryError> {
    sql::execute(
        transaction,
        "INSERT OR REPLACE INTO closures
         (installable, closure, fingerprint, built_at) VALUES (?1, ?2, ?3, ?4)",
        (Text(installable), Text(closure), fingerprint, Time::now()),
    )?;
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<CachedClosure> {
    Ok(CachedClosure {
        installable: row.get("installable")?,
        closure: row.text("closure")?,
        fingerprint: row.get("fingerprint")?,
        built_at: row.time("built_at")?,
    })
}
