//! Tables `repositories` and `repository_names`: GitHub's numbers of repositories, and the names they had.

use innkeeper_model::preview::RepoName;
use jiff::Timestamp;
use rusqlite::{Connection, Transaction};

use crate::codec::{Columns, Number, Text, Time};
use crate::error::QueryError;
use crate::sql;

/// Returns the name under which a repository is recorded.
pub(crate) fn name_of(connection: &Connection, id: u64) -> Result<Option<RepoName>, QueryError> {
    let query = "SELECT name FROM repositories WHERE id = ?1";
    sql::first(connection, query, [Number(id)], |row| row.text(0))
}

/// Returns the repository that is recorded under a name.
pub(crate) fn id_of(connection: &Connection, name: &RepoName) -> Result<Option<u64>, QueryError> {
    let query = "SELECT id FROM repositories WHERE name = ?1";
    sql::first(connection, query, [Text(name)], |row| row.number(0))
}

/// Returns the first repository that had a name.
pub(crate) fn first_id_of(
    connection: &Connection,
    name: &RepoName,
) -> Result<Option<u64>, QueryError> {
    let query = "SELECT id FROM repository_names WHERE name = ?1 ORDER BY seq LIMIT 1";
    sql::first(connection, query, [Text(name)], |row| row.number(0))
}

/// Reports whether a repository has or had a name.
pub(crate) fn had_name(
    connection: &Connection,
    id: u64,
    name: &RepoName,
) -> Result<bool, QueryError> {
    let query = "SELECT 1 FROM repository_names WHERE name = ?1 AND id = ?2";
    sql::exists(connection, query, (Text(name), Number(id)))
}

/// Reports whether a repository has this name for certain: it need not be checked, and the repository exists.
pub(crate) fn is_settled(
    connection: &Connection,
    id: u64,
    name: &RepoName,
) -> Result<bool, QueryError> {
    sql::exists(
        connection,
        "SELECT 1 FROM repositories
         WHERE id = ?1 AND name = ?2 AND to_check = 0 AND deleted_at IS NULL",
        (Number(id), Text(name)),
    )
}

/// Returns the time of a repository's deletion.
pub(crate) fn deleted_at(
    connection: &Connection,
    id: u64,
) -> Result<Option<Timestamp>, QueryError> {
    let query = "SELECT deleted_at FROM repositories WHERE id = ?1";
    let time = sql::first(connection, query, [Number(id)], |row| {
        row.opt_time("deleted_at")
    })?;
    Ok(time.flatten())
}

/// Returns the existing repositories that are to be checked.
pub(crate) fn to_check(connection: &Connection) -> Result<Vec<RepoName>, QueryError> {
    sql::all(
        connection,
        "SELECT name FROM repositories WHERE to_check = 1 AND deleted_at IS NULL ORDER BY id",
        (),
        |row| row.text(0),
    )
}

/// Records a repository's name and adds it to the repository's names.
pub(crate) fn upsert(
    transaction: &Transaction<'_>,
    id: u64,
    name: &RepoName,
) -> Result<(), QueryError> {
    let insert = "INSERT OR IGNORE INTO repository_names (name, id) VALUES (?1, ?2)";
    sql::execute(transaction, insert, (Text(name), Number(id)))?;
    sql::execute(
        transaction,
        "INSERT INTO repositories (id, name) VALUES (?1, ?2)
         ON CONFLICT (id) DO UPDATE SET name = excluded.name",
        (Number(id), Text(name)),
    )?;
    Ok(())
}

/// Replaces the name of a repository by one that is to be checked.
pub(crate) fn set_unknown_name(
    transaction: &Transaction<'_>,
    id: u64,
    name: &RepoName,
) -> Result<(), QueryError> {
    let update = "UPDATE repositories SET name = ?2, to_check = 1 WHERE id = ?1";
    sql::execute(transaction, update, (Number(id), Text(name)))?;
    Ok(())
}

/// Records whether GitHub is to be queried for the name.
pub(crate) fn set_to_check(
    transaction: &Transaction<'_>,
    id: u64,
    to_check: bool,
) -> Result<(), QueryError> {
    let update = "UPDATE repositories SET to_check = ?2 WHERE id = ?1";
    sql::execute(transaction, update, (Number(id), to_check))?;
    Ok(())
}

/// Records that a repository exists and that its name is right.
pub(crate) fn set_confirmed(transaction: &Transaction<'_>, id: u64) -> Result<(), QueryError> {
    let update = "UPDATE repositories SET to_check = 0, deleted_at = NULL WHERE id = ?1";
    sql::execute(transaction, update, [Number(id)])?;
    Ok(())
}

/// Records that a repository was deleted.
pub(crate) fn set_deleted(transaction: &Transaction<'_>, id: u64) -> Result<(), QueryError> {
    let update = "UPDATE repositories SET deleted_at = ?2 WHERE id = ?1";
    sql::execute(transaction, update, (Number(id), Time::now()))?;
    Ok(())
}
