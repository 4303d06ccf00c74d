//! Copies of the database for backups.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use innkeeper_model::{DesiredState, Guest, GuestName};

use crate::database::Database;
use crate::error::{QueryError, StoreError};
use crate::preview::Presence;
use crate::sql;

/// The records in a copy of a database, as far as a restore has to choose among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupRecords {
    /// The guests, without those that were being destroyed.
    pub guests: Vec<Guest>,
    /// The previews, without those that were being removed.
    pub previews: Vec<GuestName>,
}

impl BackupRecords {
    /// Checks a copy for damage, migrates it to this version, and reads it. Changes the file. Blocks.
    ///
    /// # Errors
    /// As for [`Store::open`](crate::Store::open).
    pub fn read(path: &Path) -> Result<Self, StoreError> {
        let database = Database::open(path)?;
        let read = || {
            let mut guests = sql::guests::list(&database.connection)?;
            guests.retain(|guest| guest.desired != DesiredState::Absent);
            let mut previews = sql::previews::list(&database.connection)?;
            previews.retain(|preview| preview.desired == Presence::Present);
            let previews = previews.into_iter().map(|preview| preview.record.slug);
            Ok(Self {
                guests,
                previews: previews.collect(),
            })
        };
        let records = read().map_err(|error: QueryError| error.explain("read its records", path));
        // Writes the log back into the file.
        database.close()?;
        records
    }
}

/// Creates the file of a copy, which only the daemon's user can read: SQLite would create it for everyone. Replaces an older
/// one.
pub(crate) fn create_file(path: &Path) -> Result<(), StoreError> {
    let create = || {
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        options.open(path).map(drop)
    };
    create().map_err(|error| StoreError::from_io("create a copy", path, error))
}
