//! Inspection of a database without opening it for changes, also beside a running daemon.

use std::io;
use std::path::Path;

use innkeeper_model::{Slot, SlotRange};
use rusqlite::{Connection, OpenFlags};

use crate::error::{QueryError, StoreError};
use crate::sql::slots;
use crate::{database, schema};

/// The contents of a database that decide whether a daemon can start with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The version of the database.
    pub schema: i64,
    /// The first slots of all guests.
    pub slots: Vec<Slot>,
}

/// Returns the newest version of databases that this release supports.
#[must_use]
pub fn supported_schema() -> i64 {
    schema::version_after(schema::MIGRATIONS)
}

/// Inspects a database: whether [`Store::open`](crate::Store::open) would accept its version, and the subnet `range`.
/// Returns `None` if the file does not exist. Damage is not searched for.
///
/// # Errors
/// Those of `Store::open`.
pub fn inspect(path: &Path, range: SlotRange) -> Result<Option<Inspection>, StoreError> {
    match std::fs::File::open(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::from_io("read the file", path, error)),
    }
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(|error| StoreError::from_sqlite("open it", path, error))?;
    let found = read(&connection, path, range);
    found
        .map(Some)
        .map_err(|error: QueryError| error.explain("inspect it", path))
}

fn read(connection: &Connection, path: &Path, range: SlotRange) -> Result<Inspection, QueryError> {
    let schema = database::identify(connection, path)?;
    // A file that was created and never migrated has no tables.
    if schema == 0 {
        return Ok(Inspection {
            schema,
            slots: Vec::new(),
        });
    }
    slots::check_subnet(connection, range)?;
    Ok(Inspection {
        schema,
        slots: slots::of_guests(connection)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    fn range(text: &str) -> SlotRange {
        text.parse().expect("a subnet")
    }

    #[test]
    fn inspect_returns_the_version_beside_an_open_store() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("innkeeper.db");
        assert_eq!(inspect(&path, range("10.100.0.0/16")).expect("none"), None);
        let _store = Store::open(&path, range("10.100.0.0/16")).expect("opens");
        let found = inspect(&path, range("10.100.0.0/16")).expect("readable");
        let found = found.expect("it exists");
        assert_eq!(
            (found.schema, found.slots),
            (supported_schema(), Vec::new())
        );
    }

    #[test]
    fn inspect_refuses_a_newer_version_and_changes_nothing() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("innkeeper.db");
        drop(Store::open(&path, range("10.100.0.0/16")).expect("opens"));
        let newer = supported_schema() + 1;
        // The store's thread closes the file some time after the drop.
        let connection = Connection::open(&path).expect("opens");
        connection
            .pragma_update(None, "user_version", newer)
            .expect("written");
        drop(connection);
        for _ in 0..2 {
            let error = inspect(&path, range("10.100.0.0/16")).expect_err("too new");
            assert!(
                matches!(error, StoreError::TooNew { found, .. } if found == newer),
                "{error}"
            );
        }
    }
}
