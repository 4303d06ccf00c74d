//! The file: opening it, looking whether it is one that we can work with, and changing it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use innkeeper_model::SlotRange;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::error::{QueryError, StoreError};
use crate::running_time::{self, Clock};
use crate::{reserve, schema, slots};

/// How long to wait for another program's lock, such as somebody's `sqlite3` prompt.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// More than there are statements in this crate, so that none is parsed twice.
const CACHED_STATEMENTS: usize = 128;

/// When a change must have reached the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Before the transaction is said to be committed. For intents: we promise to carry them out.
    Now,
    /// With the next intent or checkpoint. For facts, which can be observed again.
    Soon,
}

impl Durability {
    /// The word for `PRAGMA synchronous` (SQLite manual, "PRAGMA synchronous", about WAL mode).
    fn level(self) -> &'static str {
        match self {
            Self::Now => "FULL",
            Self::Soon => "NORMAL",
        }
    }
}

/// The connection with all that its owner knows.
pub(crate) struct Database {
    /// For reading. Changes go through [`Self::write`].
    pub(crate) connection: Connection,
    /// Which slots there are.
    pub(crate) range: SlotRange,
    /// Events appended since the last time that old ones were deleted; nothing before the first time.
    pub(crate) since_prune: Option<u32>,
    /// Deliveries recorded since the last time that old ones were deleted; nothing before the first time.
    pub(crate) deliveries_since_prune: Option<u32>,
    /// The file.
    pub(crate) path: PathBuf,
    /// The level that the connection has now.
    pub(crate) durability: Durability,
    /// The running time.
    pub(crate) clock: Clock,
}

impl Database {
    /// Opens or creates the file; see [`Store::open`](crate::Store::open).
    pub(crate) fn open(path: &Path, range: SlotRange) -> Result<Self, StoreError> {
        reserve::release_file(path);
        ensure_file(path)
            .map_err(|error| StoreError::from_io("create or open the file", path, error))?;
        let explain = |action| move |error: QueryError| error.explain(action, path);

        let mut connection = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )
        .map_err(|error| StoreError::from_sqlite("open it", path, error))?;
        inspect(&connection, path).map_err(explain("look for damage"))?;
        set_up(&connection).map_err(|error| explain("set up the connection")(error.into()))?;
        reserve::restart_log(&connection);
        schema::migrate(&mut connection, schema::MIGRATIONS)
            .map_err(|error| explain("bring its tables to this version")(error.into()))?;
        let clock = Clock::read(&connection).map_err(explain("read the running time"))?;
        let mut database = Self {
            clock,
            connection,
            range,
            since_prune: None,
            deliveries_since_prune: None,
            path: path.to_owned(),
            durability: Durability::Now,
        };
        database
            .write(Durability::Now, |transaction| {
                slots::settle(transaction, range)
            })
            .map_err(explain("compare the subnets"))?;
        reserve::restore(&database.connection, path);
        Ok(database)
    }

    /// Refuses with [`StoreError::DiskFull`] while the disk has no space but the reserve, which belongs to removals.
    /// For callers that add records; restores the reserve where it was used and space is there again.
    pub(crate) fn require_space(&self) -> Result<(), QueryError> {
        if reserve::is_low(&self.path) {
            return Err(StoreError::DiskFull {
                path: self.path.clone(),
                source: io::Error::from(io::ErrorKind::StorageFull).into(),
            }
            .into());
        }
        reserve::restore(&self.connection, &self.path);
        Ok(())
    }

    /// Runs `work` in a transaction, all or nothing. No reader or writer comes in between. On a full disk it takes the
    /// space of the [`reserve`].
    pub(crate) fn write<T>(
        &mut self,
        durability: Durability,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        if reserve::is_low(&self.path) {
            reserve::restart_log(&self.connection);
        }
        // Has no effect inside a transaction, so it is set before.
        if self.durability != durability {
            self.connection
                .pragma_update(None, "synchronous", durability.level())?;
            self.durability = durability;
        }
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let result = work(&transaction)?;
        transaction.commit()?;
        Ok(result)
    }

    /// Records the running time. Without success, the next attempt records it.
    pub(crate) fn record_running_time(&mut self) {
        self.clock.begin_recording();
        // The reserve belongs to removals.
        if reserve::is_low(&self.path) {
            return;
        }
        if let Err(error) = running_time::record(self) {
            let error = error.explain("record the running time", &self.path);
            tracing::debug!(%error, "the running time was not recorded");
        }
    }

    /// Records the running time, writes the log back into the file and closes it.
    pub(crate) fn close(mut self) -> Result<(), StoreError> {
        self.record_running_time();
        let Self {
            connection, path, ..
        } = self;
        let written_back = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()));
        connection
            .close()
            .map_err(|(_, error)| error)
            .and(written_back)
            .map_err(|error| StoreError::from_sqlite("write the log back", &path, error))
    }
}

/// Makes the file if there is none, for the daemon's user only, and sees that its name is on the disk.
/// Asking the kernel ourselves gives its own words for what is wrong; SQLite says "unable to open".
fn ensure_file(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other.map(drop),
    }
    options.create_new(true).mode(0o600).open(path)?;
    match path.parent() {
        Some(parent) if parent != Path::new("") => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// Refuses files that we must not work with, before anything in them is changed.
fn inspect(connection: &Connection, path: &Path) -> Result<(), QueryError> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    let found = schema::version(connection)?;
    let application: i64 = connection.query_row("PRAGMA application_id", (), |row| row.get(0))?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
    // Ours are marked in the transaction that makes the tables; a new file has neither.
    if application != schema::APPLICATION_ID && (tables, found, application) != (0, 0, 0) {
        return Err(StoreError::Foreign {
            path: path.to_owned(),
        }
        .into());
    }
    let known = schema::version_after(schema::MIGRATIONS);
    if found > known {
        return Err(StoreError::TooNew {
            path: path.to_owned(),
            found,
            known,
        }
        .into());
    }
    let finding: String = connection.query_row("PRAGMA quick_check(1)", (), |row| row.get(0))?;
    if finding != "ok" {
        return Err(StoreError::Damaged {
            path: path.to_owned(),
            finding,
        }
        .into());
    }
    Ok(())
}

fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| {
        match row.get::<_, String>(0)?.as_str() {
            "wal" => Ok(()),
            other => Err(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ERROR),
                Some(format!("the journal mode stays '{other}'")),
            )),
        }
    })?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Otherwise a large statement may need a temporary file.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "synchronous", Durability::Now.level())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_durability_has_its_level_inside_the_transaction() {
        let directory = tempfile::tempdir().expect("directory");
        let range = "10.100.0.0/16".parse().expect("range");
        let mut database =
            Database::open(&directory.path().join("innkeeper.db"), range).expect("opens");
        for (durability, level) in [
            (Durability::Now, 2),
            (Durability::Soon, 1),
            (Durability::Soon, 1),
            (Durability::Now, 2),
        ] {
            let found: i64 = database
                .write(durability, |transaction| {
                    Ok(transaction.query_row("PRAGMA synchronous", (), |row| row.get(0))?)
                })
                .expect("reads");
            assert_eq!(found, level, "{durability:?}");
        }
    }
}
