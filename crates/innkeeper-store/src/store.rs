//! [`Store`]: the handle, its methods by subject, and the rules that span tables.

mod additional;
mod audit;
mod backup;
mod changes;
mod checks;
mod closures;
mod deliveries;
mod evaluations;
mod events;
mod grants;
mod guests;
mod identity;
mod idle;
mod operations;
mod pings;
mod previews;
mod repositories;
mod retained;
mod running_time;
mod seats;
mod slots;
mod snapshots;
mod stale_secrets;
#[cfg(test)]
mod tests;
mod tokens;

use std::path::Path;
use std::sync::mpsc;

use innkeeper_model::SlotRange;
use rusqlite::{Connection, Transaction};
use tokio::sync::oneshot;

use crate::connection::{self, Job, Message};
use crate::database::{Database, Durability};
use crate::error::{QueryError, StoreError};
use crate::sql;

pub use additional::AdditionalConfig;
pub use audit::AuditLimits;
pub use backup::{MovedGuest, NameHold, Restore};
pub use changes::RequestedChange;
pub use repositories::RepoIdentity;
pub use tokens::NewSession;

/// A handle to the database. Clones share it. It closes with the last handle or with [`Self::close`]; then every method
/// fails with [`StoreError::Closed`].
#[derive(Clone, Debug)]
pub struct Store {
    thread: mpsc::Sender<Message<deliveries::Batch>>,
    range: SlotRange,
}

impl Store {
    /// Opens or creates the database at `path`, whose directory must exist, checks it for damage, and migrates it to this
    /// version. Blocks; meant for the start of the daemon.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Foreign`] and [`StoreError::TooNew`] for files that cannot be used; their
    /// contents are not changed. [`StoreError::SubnetChanged`] when guests would get other addresses.
    /// [`StoreError::DiskFull`], [`StoreError::PermissionDenied`], [`StoreError::Locked`] and [`StoreError::Failed`] when
    /// the file cannot be read or written.
    pub fn open(path: &Path, range: SlotRange) -> Result<Self, StoreError> {
        let mut database = Database::open(path)?;
        database
            .write(Durability::Now, |transaction| {
                sql::slots::set_subnet(transaction, range)
            })
            .map_err(|error| error.explain("compare the subnets", path))?;
        database.restore_reserve();
        let thread = connection::spawn(database)
            .map_err(|error| StoreError::from_io("start its thread", path, error))?;
        Ok(Self { thread, range })
    }

    /// Waits for all work that was sent before, writes the log back into the file and closes it.
    ///
    /// # Errors
    /// SQLite's errors. The file is closed in any case, and no data is lost: the next start reads the log.
    /// [`StoreError::Closed`] when another handle closed it.
    pub async fn close(self) -> Result<(), StoreError> {
        let (reply, result) = oneshot::channel();
        self.thread
            .send(Message::Close(reply))
            .map_err(|_| StoreError::Closed)?;
        result.await.map_err(|_| StoreError::Closed)?
    }

    /// Runs a query. `action` completes the sentence "cannot …".
    async fn read<T: Send + 'static>(
        &self,
        action: &'static str,
        query: impl FnOnce(&Connection) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run(action, |database| query(&database.connection))
            .await
    }

    /// Runs a transaction. See [`Self::read`] about `action`.
    async fn write<T: Send + 'static>(
        &self,
        action: &'static str,
        durability: Durability,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run(action, move |database| database.write(durability, work))
            .await
    }

    /// Runs a durable transaction that adds records: it fails with [`StoreError::DiskFull`] while the disk has no space
    /// but the reserve. See [`Self::read`] about `action`.
    async fn insert<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run(action, |database| {
            database.require_space()?;
            database.write(Durability::Now, work)
        })
        .await
    }

    /// Runs `work` on the thread and waits for its result. It is completed even if the caller is canceled. See
    /// [`Self::read`] about `action`.
    async fn run<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce(&mut Database) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, result) = oneshot::channel();
        // Sending fails if the caller was canceled.
        self.send(action, work, |result| drop(reply.send(result)));
        result.await.map_err(|_| StoreError::Closed)?
    }

    /// Runs `work` on the thread without waiting. The thread calls `reply`, unless it has ended.
    fn send<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&mut Database) -> Result<T, QueryError> + Send + 'static,
        reply: impl FnOnce(Result<T, StoreError>) + Send + 'static,
    ) {
        let job: Job = Box::new(move |database| {
            reply(work(database).map_err(|error| error.explain(action, &database.path)));
        });
        // If the thread has ended, the job is dropped, and `reply` with it.
        drop(self.thread.send(Message::Run(job)));
    }
}
