//! Space for file trees: retained files are purged when their time is over, or when space is needed.

use innkeeper_model::api::RetainedSpace;
use innkeeper_model::{Code, EventKind, Explain, Failure, Operation, Retained, RetainedId, Verb};
use innkeeper_store::RetainedFiles;
use tracing::warn;

use crate::EngineError;
use crate::inner::Inner;
use crate::journal::Subject;
use crate::probe::Edge;

/// Actor of purges that the daemon starts.
const ACTOR: &str = "innkeeperd";

impl Inner {
    /// Purges the oldest retained files if `error` reports a full disk. Returns true if a retry is worthwhile.
    pub(crate) async fn free_space(&self, error: &impl Explain) -> bool {
        error.code() == Code::DiskFull && self.purge_oldest().await
    }

    /// Purges retained files, oldest first, until another file tree fits.
    ///
    /// # Errors
    /// When no retained files are left and there is still no room.
    pub(crate) async fn make_room(&self) -> Result<(), EngineError> {
        loop {
            match self.host.rootfs.require_room().await {
                Err(error) if self.free_space(&error).await => {}
                result => return Ok(result?),
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

    /// Purges expired files and those whose purge failed, measures new ones, and makes room for another file tree.
    pub(crate) async fn maintain_retained(&self) -> Result<(), EngineError> {
        let clock = self.store.expiry_clock().await?;
        let mut any = false;
        for files in self.store.retained().await? {
            let Retained { id, removing, .. } = files.record;
            if removing || clock.has_expired(files.since, self.config.retention) {
                self.purge_now(id).await?;
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
        if any {
            // Best effort: an operation that needs the room reports the error.
            self.make_room().await.ok();
        }
        Ok(())
    }

    /// Purges the oldest retained files. Returns true if they are gone.
    async fn purge_oldest(&self) -> bool {
        let oldest = match self.store.retained().await {
            Ok(all) => all.into_iter().find(|files| !files.record.removing),
            Err(error) => {
                warn!(code = %error.code(), "{}", innkeeper_model::chain(&error));
                None
            }
        };
        match oldest {
            Some(files) => self.purge_now(files.record.id).await.unwrap_or(false),
            None => false,
        }
    }

    /// Purges files unless an operation already does. Returns true if they are gone.
    async fn purge_now(&self, id: RetainedId) -> Result<bool, EngineError> {
        match self.begin_purge(id, ACTOR).await? {
            Some((files, operation)) => Ok(self.purge(&files.record, &operation).await),
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
        Ok(begun)
    }

    /// Executes a purge. Returns true if the files are gone. Otherwise, the next maintenance retries.
    pub(crate) async fn purge(&self, retained: &Retained, operation: &Operation) -> bool {
        let subject = Subject {
            operation: Some(operation.id),
            guest: Some(retained.name.clone()),
        };
        let verb = Verb::Purge;
        self.journal.record(&subject, EventKind::Accepted { verb });
        let removal = async { Ok(self.host.rootfs.remove_retained(retained.id).await?) };
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
        let kind = match failure {
            None => EventKind::Finished,
            Some(failure) => EventKind::Failed { failure },
        };
        self.journal.record(&subject, kind);
        is_gone
    }
}
