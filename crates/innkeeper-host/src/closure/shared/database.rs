//! Nix's database of some paths, copied from the host's.
//!
//! Nix documents neither its schema nor promises that it stays: the statements that create it are copied with the rows. Only
//! the three tables below have had the same names and keys since Nix 2.0 (schema 10).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use innkeeper_model::StorePath;
use rusqlite::{Connection, OpenFlags};

use crate::{FileError, FileErrorExt};

/// The schema that [`write()`] can copy, as in Nix's file `schema`.
const SCHEMA: &str = "10";

/// Maximum time to wait for the host's Nix, which locks its database only briefly.
const BUSY: Duration = Duration::from_secs(10);

/// A database for a guest's Nix that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The host's database has a schema that Innkeeper does not know.
    #[error("the database {} has the schema '{found}', and Innkeeper knows only {SCHEMA}", path.display())]
    Schema {
        /// The host's database.
        path: PathBuf,
        /// Its schema.
        found: String,
    },
    /// SQLite fails.
    #[error("cannot copy the valid paths from {} to {}", from.display(), to.display())]
    Sql {
        /// The host's database.
        from: PathBuf,
        /// The guest's database.
        to: PathBuf,
        /// SQLite's error.
        #[source]
        source: rusqlite::Error,
    },
}

/// Writes the database of these paths and all that they refer to, in place of an older one. `from` and `to` are Nix's
/// directories `db`. Skips paths that are not valid.
pub(super) fn write(
    from: &Path,
    to: &Path,
    paths: &BTreeSet<StorePath>,
) -> Result<(), DatabaseError> {
    let host = from.join("db.sqlite");
    let schema = from.join("schema");
    let found = fs::read_to_string(&schema).on("read", &schema)?;
    if found.trim() != SCHEMA {
        let found = found.trim().chars().take(20).collect();
        return Err(DatabaseError::Schema { path: host, found });
    }
    let (new, database) = (to.join("db.sqlite.new"), to.join("db.sqlite"));
    match fs::remove_file(&new) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed.on("remove", &new)?,
    }
    copy(&host, &new, paths).map_err(|source| DatabaseError::Sql {
        from: host,
        to: new.clone(),
        source,
    })?;
    let schema = to.join("schema");
    fs::write(&schema, SCHEMA).on("write", &schema)?;
    Ok(fs::rename(&new, &database).on("create", &database)?)
}

/// Reports whether the database lists a path as valid. `None` if it cannot be read, or has an unknown schema. `from` is Nix's
/// directory `db`.
pub(super) fn lists(from: &Path, path: &StorePath) -> Option<bool> {
    let schema = fs::read_to_string(from.join("schema")).ok()?;
    if schema.trim() != SCHEMA {
        return None;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = Connection::open_with_flags(from.join("db.sqlite"), flags).ok()?;
    database.busy_timeout(BUSY).ok()?;
    let sql = "SELECT EXISTS (SELECT 1 FROM ValidPaths WHERE path = ?1)";
    database
        .query_row(sql, [path.as_str()], |row| row.get(0))
        .ok()
}

fn copy(host: &Path, guest: &Path, paths: &BTreeSet<StorePath>) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut database = Connection::open_with_flags(guest, flags)?;
    database.busy_timeout(BUSY)?;
    let uri = format!("file:{}?mode=ro", host.display());
    database.execute("ATTACH DATABASE ?1 AS host", [uri])?;
    let transaction = database.transaction()?;
    {
        let mut schema = transaction.prepare(
            "SELECT sql FROM host.sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
             ORDER BY type != 'table'",
        )?;
        let statements: Vec<String> = schema
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for statement in statements {
            transaction.execute_batch(&statement)?;
        }
        // A newer Nix in the guest would add it to the database of an older one, which it cannot write.
        transaction.execute_batch(
            "CREATE TABLE IF NOT EXISTS main.SchemaMigrations (migration TEXT PRIMARY KEY NOT NULL)",
        )?;
        transaction.execute_batch(
            "CREATE TEMP TABLE shared (id INTEGER PRIMARY KEY); CREATE TEMP TABLE top (path TEXT)",
        )?;
        let mut top = transaction.prepare("INSERT INTO temp.top VALUES (?1)")?;
        for path in paths {
            top.execute([path.as_str()])?;
        }
    }
    transaction.execute_batch(
        "INSERT INTO temp.shared
           WITH RECURSIVE reached (id) AS (
             SELECT id FROM host.ValidPaths WHERE path IN (SELECT path FROM temp.top)
             UNION
             SELECT reference FROM host.Refs JOIN reached ON referrer = reached.id)
           SELECT id FROM reached;
         INSERT INTO main.ValidPaths SELECT * FROM host.ValidPaths WHERE id IN temp.shared;
         INSERT INTO main.Refs SELECT * FROM host.Refs WHERE referrer IN temp.shared;
         INSERT INTO main.DerivationOutputs SELECT * FROM host.DerivationOutputs WHERE drv IN temp.shared;",
    )?;
    transaction.commit()
}
