//! The reserve: removals need no free space.
//!
//! A guest can fill the disk that also holds the database, and its removal must still be recorded. The guest could take
//! any space that is released at that moment, so the reserve lies where only SQLite can use it:
//!
//! - free pages inside the database file, which new rows take before the file grows;
//! - the write-ahead log, which keeps its size while the daemon runs: after its content has been written back, it is
//!   overwritten from its start.
//!
//! A daemon that stops removes the log, so that one file is the whole database. The file `<database>-reserve` reserves the
//! space for the next log: a start on a full disk removes it first.
//!
//! On a disk that is nearly full, every change first writes the log back, so that the log does not grow. Callers that add
//! records fail there ([`Database::require_space`](crate::database::Database::require_space)).

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

/// The size of each part, in bytes. A removal writes some hundred KiB to the log, most of it events.
const SIZE: u64 = 1 << 20;

/// The disk counts as full below this many free bytes.
const LOW: u64 = 1 << 20;

/// The size of the file beside the database, in bytes: enough for a log, its index, and the disk not to count as full.
const FILE_SIZE: usize = 4 << 20;

/// The minimum of free bytes for creating the file beside the database.
const PLENTY: u64 = 32 << 20;

/// Reports whether the disk that holds `path` has no space left but the reserve. A disk that cannot be examined counts as
/// not full.
pub(crate) fn is_low(path: &Path) -> bool {
    free(path).is_some_and(|free| free < LOW)
}

/// Returns the free bytes of the disk that holds `path` or its directory.
fn free(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path.parent()?).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Removes the file beside the database when the disk is nearly full, so that the database can be opened with its log.
pub(crate) fn release_file(path: &Path) {
    if free(path).is_some_and(|free| free < PLENTY)
        && fs::remove_file(beside(path, "-reserve")).is_ok()
    {
        tracing::warn!("the disk is nearly full: the reserve for removals is in use");
    }
}

/// Creates the file beside the database while space is plentiful. Best effort.
fn restore_file(path: &Path) {
    let file = beside(path, "-reserve");
    if file.exists() || free(path).is_none_or(|free| free < PLENTY) {
        return;
    }
    // A sparse file would reserve no space.
    if let Err(error) = fs::write(&file, vec![0; FILE_SIZE]) {
        tracing::warn!(%error, "cannot write {}", file.display());
        fs::remove_file(&file).ok();
    }
}

/// Writes the log back into the file, so that the next change overwrites it from its start. Best effort: a failure here
/// only means that the next change extends the log.
pub(crate) fn restart_log(connection: &Connection) {
    if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(RESTART)", (), |_| Ok(())) {
        tracing::debug!(%error, "the database's log could not be written back");
    }
}

/// Creates the reserve if it is too small. Best effort: without it, the daemon works, but removals may have to wait for
/// space.
pub(crate) fn restore(connection: &Connection, path: &Path) {
    restore_file(path);
    match is_whole(connection, path) {
        Ok(true) => {}
        Ok(false) if is_low(path) => {
            tracing::warn!("the disk is too full for the reserve that removals use");
        }
        Ok(false) => {
            if let Err(error) = make(connection) {
                tracing::warn!(%error, "cannot make the reserve that removals use on a full disk");
            }
        }
        Err(error) => tracing::warn!(%error, "cannot look at the reserve that removals use"),
    }
}

fn is_whole(connection: &Connection, path: &Path) -> rusqlite::Result<bool> {
    let pages: i64 = connection.query_row("PRAGMA freelist_count", (), |row| row.get(0))?;
    let page: i64 = connection.query_row("PRAGMA page_size", (), |row| row.get(0))?;
    let log = fs::metadata(beside(path, "-wal")).map_or(0, |log| log.len());
    // Rows come and go, so pages are added only when fewer than half are left.
    let free = u64::try_from(pages.saturating_mul(page)).unwrap_or(0);
    Ok(free >= SIZE / 2 && log >= SIZE)
}

/// Fills pages and the log with a table of zeros, and drops the table, which leaves free pages in a file of full size.
/// After a crash in between, the next call drops the table.
fn make(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "DROP TABLE IF EXISTS reserve;
         BEGIN IMMEDIATE;
         CREATE TABLE reserve (padding BLOB NOT NULL);
         INSERT INTO reserve VALUES (zeroblob({SIZE}));
         COMMIT;"
    ))?;
    restart_log(connection);
    connection.execute_batch("DROP TABLE reserve;")?;
    restart_log(connection);
    Ok(())
}

/// Returns the path of the file beside the database with this suffix.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}
