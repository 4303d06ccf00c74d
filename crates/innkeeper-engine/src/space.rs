//! Space for file trees: retained files are purged when their time is over, or when space is needed.
//!
//! Purges run one at a time, under `purge_lock`. A caller that needs space checks again after it has waited for the lock,
//! so that concurrent callers do not purge two trees where one is enough:
//!
//! - A step that failed on a full disk retries without a purge if any purge finished since the attempt began.
//! - A request that requires room for another file tree, and the periodic maintenance, measure again under the lock, and
//!   purge only while the measurement is below the limit (`storage.min_free`, `storage.pool_limit_percent`).
//!
//! The periodic maintenance keeps room for the next file tree. It may therefore purge another tree after a create that
//! used up the room.

use std::sync::atomic::Ordering;

use innkeeper_model::api::RetainedSpace;
use innkeeper_model::{Code, EventKind, Explain, Failure, Operation, Retained, RetainedId, Verb};
use innkeeper_store::RetainedFiles;
use tokio::sync::MutexGuard;
use tracing::warn;

use crate::EngineError;
use crate::inner::Inner;
use crate::journal::Subject;
use crate::probe::Edge;

/// Actor of purges that the daemon starts.
const ACTOR: &str = "innkeeperd";

/// Proof that the caller holds `purge_lock`.
type PurgeLock<'a> = MutexGuard<'a, ()>;

impl Inner {
    /// Returns the number of purges so far. Read before an attempt, for [`Self::free_space`].
    pub(crate) fn purge_count(&self) -> u64 {
        self.purges.load(Ordering::Acquire)
    }

    /// Frees space after an attempt that failed with `error`, if that reports a full disk. Returns true if a retry is
    /// worthwhile: another purge has finished since the attempt began, or the oldest retained files were purged now.
    pub(crate) async fn free_space(&self, error: &impl Explain, purges_before: u64) -> bool {
        if error.code() != Code::DiskFull {
            return false;
        }
        if self.discard_warm().await > 0 {
            return true;
        }
        let lock = self.purge_lock.lock().await;
        self.purge_count() != purges_before || self.purge_oldest(&lock).await
    }

    /// Removes warm guests, then purges retained files, oldest first, until another file tree fits.
    ///
    /// # Errors
    /// When space is exhausted although no retained files are left.
    pub(crate) async fn make_room(&self) -> Result<(), EngineError> {
        let mut lock = None;
        loop {
            match (self.host.rootfs.require_room().await, &lock) {
                (Err(error), None) if error.code() == Code::DiskFull => {
                    if self.discard_warm().await == 0 {
                        lock = Some(self.purge_lock.lock().await);
                    }
                }
                (Err(error), Some(lock))
                    if error.code() == Code::DiskFull && self.purge_oldest(lock).await => {}
                (result, _) => return Ok(result?),
            }
        }
    }

    /// Returns the space that retained files use.
    pub(crate) async fn retained_space(&self) -> Result<RetainedSpace, EngineError> {
        let all = self.store.retained().await?;
        Ok(RetainedSpace {
            agents: all.len(),
            bytes: all.iter().filter_map(|files| files.record.bytes).sum(),
        })
    }

    /// Purges expired files and those whose purge failed, and measures new ones. With `keep_room`, also makes room for
    /// another file tree. A destroy needs no room, so only the periodic maintenance keeps it.
    pub(crate) async fn maintain_retained(&self, keep_room: bool) -> Result<(), EngineError> {
        let clock = self.store.expiry_clock().await?;
        let mut any = false;
        for files in self.store.retained().await? {
            let Retained { id, removing, .. } = files.record;
            if removing || clock.has_expired(files.since, self.config.retention) {
                let lock = self.purge_lock.lock().await;
                self.purge_now(id, &lock).await?;
                continue;
            }
            any = true;
            if files.record.bytes.is_none() {
                match self.host.rootfs.retained_bytes(id).await {
                    Ok(bytes) => self.store.set_retained_bytes(id, bytes).await?,
                    Err(error) => {
                        warn!("{}", innkeeper_model::chain(&error));
                        self.store.set_retained_bytes(id, 0).await?;
                    }
                }
            }
        }
        if keep_room && any {
            // Best effort: an operation that needs the room reports the error.
            self.make_room().await.ok();
        }
        Ok(())
    }

    /// Purges the oldest retained files. Returns true if they are gone.
    async fn purge_oldest(&self, lock: &PurgeLock<'_>) -> bool {
        let oldest = match self.store.retained().await {
            Ok(all) => all.into_iter().find(|files| !files.record.removing),
            Err(error) => {
                warn!(code = %error.code(), "{}", innkeeper_model::chain(&error));
                None
            }
        };
        match oldest {
            Some(files) => self.purge_now(files.record.id, lock).await.unwrap_or(false),
            None => false,
        }
    }

    /// Purges files unless an operation already does. Returns true if they are gone.
    async fn purge_now(&self, id: RetainedId, lock: &PurgeLock<'_>) -> Result<bool, EngineError> {
        match self.begin_purge(id, ACTOR).await? {
            Some((files, operation)) => Ok(self.purge(&files.record, &operation, lock).await),
            None => Ok(false),
        }
    }

    pub(crate) async fn begin_purge(
        &self,
        id: RetainedId,
        actor: &str,
    ) -> Result<Option<(RetainedFiles, Operation)>, EngineError> {
        self.probe(Verb::Purge, "accept", Edge::Before);
        let begun = self.store.begin_purge(id, actor).await?;
        self.probe(Verb::Purge, "accept", Edge::After);
        if let Some((files, operation)) = &begun {
            let verb = Verb::Purge;
            self.journal.record(
                &subject(&files.record, operation),
                EventKind::Accepted { verb },
            );
        }
        Ok(begun)
    }

    /// Executes a purge. Returns true if the files are gone. Otherwise, the next maintenance retries.
    pub(crate) async fn purge(
        &self,
        retained: &Retained,
        operation: &Operation,
        _lock: &PurgeLock<'_>,
    ) -> bool {
        let subject = subject(retained, operation);
        let verb = Verb::Purge;
        let removal = self.host.rootfs.remove_retained(retained.id);
        let removed = self
            .run_step(verb, &subject, "remove-retained", removal)
            .await;
        let failure = removed.err().map(|error| Failure::from(&error));
        self.probe(verb, "finish", Edge::Before);
        let ended = self.store.end_purge(operation.id, failure.as_ref()).await;
        self.probe(verb, "finish", Edge::After);
        if let Err(error) = &ended {
            warn!(operation = %operation.id, code = %error.code(), "{}", innkeeper_model::chain(error));
        }
        let is_gone = failure.is_none() && ended.is_ok();
        if is_gone {
            self.purges.fetch_add(1, Ordering::Release);
        }
        let kind = match failure {
            None => EventKind::Finished,
            Some(failure) => EventKind::Failed { failure },
        };
        self.journal.record(&subject, kind);
        is_gone
    }
}

fn subject(retained: &Retained, operation: &Operation) -> Subject {
    Subject {
        operation: Some(operation.id),
        guest: Some(retained.name.clone()),
    }
}
