//! Statements by table: free functions on a transaction, or on a connection where they only read.
//!
//! A file here runs statements on its own table, and reads others only in joins. Rules that span tables belong to
//! [`crate::store`].

pub(crate) mod audit;
pub(crate) mod backup;
pub(crate) mod checks;
pub(crate) mod closures;
pub(crate) mod deliveries;
pub(crate) mod evaluations;
pub(crate) mod events;
pub(crate) mod grants;
pub(crate) mod guests;
pub(crate) mod held;
pub(crate) mod identity;
pub(crate) mod legacy_slots;
pub(crate) mod operations;
pub(crate) mod pings;
pub(crate) mod previews;
pub(crate) mod repositories;
pub(crate) mod retained;
pub(crate) mod rollout;
pub(crate) mod seats;
pub(crate) mod slots;
pub(crate) mod snapshots;
pub(crate) mod stale_secrets;
pub(crate) mod tokens;

use rusqlite::{Connection, OptionalExtension, Params, Row, Transaction};

use crate::error::QueryError;

/// Returns all rows of a query, in its order.
fn all<T>(
    connection: &Connection,
    sql: &str,
    parameters: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, QueryError> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(parameters, read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Returns the first row of a query, if it has one.
fn first<T>(
    connection: &Connection,
    sql: &str,
    parameters: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>, QueryError> {
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.query_row(parameters, read).optional()?)
}

/// Returns the row of a query that always has one.
fn one<T>(
    connection: &Connection,
    sql: &str,
    parameters: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<T, QueryError> {
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.query_row(parameters, read)?)
}

/// Reports whether a query has rows.
fn exists(connection: &Connection, sql: &str, parameters: impl Params) -> Result<bool, QueryError> {
    Ok(connection.prepare_cached(sql)?.exists(parameters)?)
}

/// Executes a statement and returns the number of rows that it changed.
fn execute(
    transaction: &Transaction<'_>,
    sql: &str,
    parameters: impl Params,
) -> Result<usize, QueryError> {
    Ok(transaction.prepare_cached(sql)?.execute(parameters)?)
}
