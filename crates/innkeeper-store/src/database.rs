//! The database file: opening and checking it, and transactions.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::clock::{self, Clock};
use crate::error::{QueryError, StoreError};
use crate::{reserve, schema};

/// The timeout for another program's lock, such as that of a `sqlite3` prompt.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// More than the statements of this crate, so that none is parsed twice.
const CACHED_STATEMENTS: usize = 128;

/// When a change must have reached the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Before the transaction returns. For intents: the daemon promises to carry them out.
    Now,
    /// With the next intent or checkpoint. For facts, which can be observed again.
    Soon,
}

impl Durability {
    /// The value of `PRAGMA synchronous` (SQLite manual, "PRAGMA synchronous", about WAL mode).
    fn level(self) -> &'static str {
        match self {
            Self::Now => "FULL",
            Self::Soon => "NORMAL",
        }
    }
}

/// Counts the rows that were added to a table since its last pruning.
pub(crate) struct PruneCounter {
    /// `None` before the first pruning, which is due at once.
    added: Option<u32>,
    every: u32,
}

impl PruneCounter {
    /// Creates a counter for a table that is pruned after every `every` rows.
    pub(crate) fn new(every: u32) -> Self {
        Self { added: None, every }
    }

    pub(crate) fn is_due(&self) -> bool {
        self.added.is_none_or(|added| added >= self.every)
    }

    pub(crate) fn add(&mut self, rows: usize) {
        if let Some(added) = &mut self.added {
            *added = added.saturating_add(u32::try_from(rows).unwrap_or(u32::MAX));
        }
    }

    pub(crate) fn reset(&mut self) {
        self.added = Some(0);
    }
}

/// The connection, with the state of the thread that owns it.
pub(crate) struct Database {
    /// For reading. Changes go through [`Self::write`].
    pub(crate) connection: Connection,
    /// The file.
    pub(crate) path: PathBuf,
    /// The level that the connection has now.
    pub(crate) durability: Durability,
    /// The running time.
    pub(crate) clock: Clock,
    /// Events since the last pruning.
    pub(crate) events: PruneCounter,
    /// Deliveries since the last pruning.
    pub(crate) deliveries: PruneCounter,
    /// Entries of the audit log since the last pruning.
    pub(crate) audit: PruneCounter,
}

impl Database {
    /// Opens or creates the file and migrates it; see [`Store::open`](crate::Store::open).
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        reserve::release_file(path);
        ensure_file(path)
            .map_err(|error| StoreError::from_io("create or open the file", path, error))?;
        let explain = |action| move |error: QueryError| error.explain(action, path);

        let mut connection = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )
        .map_err(|error| StoreError::from_sqlite("open it", path, error))?;
        inspect(&connection, path).map_err(explain("check it for damage"))?;
        set_up(&connection).map_err(|error| explain("set up the connection")(error.into()))?;
        reserve::restart_log(&connection);
        schema::migrate(&mut connection, schema::MIGRATIONS)
            .map_err(|error| explain("migrate its tables")(error.into()))?;
        let clock = Clock::read(&connection).map_err(explain("read the running time"))?;
        Ok(Self {
            connection,
            path: path.to_owned(),
            durability: Durability::Now,
            clock,
            events: PruneCounter::new(256),
            deliveries: PruneCounter::new(1_024),
            audit: PruneCounter::new(256),
        })
    }

    /// Fails with [`StoreError::DiskFull`] while the disk has no space but the reserve, which belongs to removals. For
    /// callers that add records. Restores the reserve if it was used and space is available again.
    pub(crate) fn require_space(&self) -> Result<(), QueryError> {
        if reserve::is_low(&self.path) {
            return Err(StoreError::DiskFull {
                path: self.path.clone(),
                source: io::Error::from(io::ErrorKind::StorageFull).into(),
            }
            .into());
        }
        self.restore_reserve();
        Ok(())
    }

    /// Creates the reserve if it is too small; see [`reserve`].
    pub(crate) fn restore_reserve(&self) {
        reserve::restore(&self.connection, &self.path);
    }

    /// Runs `work` in a transaction, all or nothing. No reader or writer comes in between. On a full disk, the
    /// transaction uses the space of the [`reserve`].
    pub(crate) fn write<T>(
        &mut self,
        durability: Durability,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        if reserve::is_low(&self.path) {
            reserve::restart_log(&self.connection);
        }
        // It has no effect inside a transaction, so it is set before.
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

    /// Records the running time. Best effort: after a failure, the next attempt records it.
    pub(crate) fn record_running_time(&mut self) {
        self.clock.begin_recording();
        // The reserve belongs to removals.
        if reserve::is_low(&self.path) {
            return;
        }
        let now = self.clock.now();
        if let Err(error) = self.write(Durability::Soon, |transaction| {
            clock::record(transaction, now)
        }) {
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

/// Creates the file if it does not exist, for the daemon's user only, and syncs its name to the disk. A system call of our
/// own returns the kernel's error; SQLite's is only "unable to open".
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

/// Refuses files of other programs or newer versions and damaged files, before they are changed.
fn inspect(connection: &Connection, path: &Path) -> Result<(), QueryError> {
    identify(connection, path)?;
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

/// Returns the version of a file. Refuses files of other programs or newer versions.
pub(crate) fn identify(connection: &Connection, path: &Path) -> Result<i64, QueryError> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    let found = schema::version(connection)?;
    let application: i64 = connection.query_row("PRAGMA application_id", (), |row| row.get(0))?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
    // The mark is set in the transaction that creates the tables; a new file has neither.
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
    Ok(found)
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
    crate::sql::held::create(connection)?;
    connection.pragma_update(None, "synchronous", Durability::Now.level())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durability_sets_its_level_inside_the_transaction() {
        let directory = tempfile::tempdir().expect("directory");
        let mut database = Database::open(&directory.path().join("innkeeper.db")).expect("opens");
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
