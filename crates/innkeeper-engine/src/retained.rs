//! Files of destroyed agents: kept for a while, brought back, removed at the end of their time or when space is needed.

use std::time::Duration;

use innkeeper_host::HostError;
use innkeeper_host::rootfs::RootfsError;
use innkeeper_model::api::{Accepted, RetainedSpace, RetainedView, UndeleteRequest};
use innkeeper_model::{
    ClosureSource, Code, EventKind, Explain, Failure, FileWork, Guest, GuestKind, GuestName,
    Operation, Retained, RetainedId, StorePath, Verb,
};
use innkeeper_store::{NewGuest, RetainedFiles, StoreError};
use tracing::warn;

use crate::EngineError;
use crate::engine::{Engine, Inner};
use crate::journal::About;
use crate::probe::Edge;

/// Who removes files that nobody asked to remove.
const ACTOR: &str = "innkeeperd";

impl Engine {
    /// The destroyed agents whose files are kept, the oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn retained(&self) -> Result<Vec<RetainedView>, EngineError> {
        let now = self.inner.store.running_time().await?;
        let limit = self.inner.config.retention;
        let view = |files: RetainedFiles| RetainedView {
            remaining_seconds: match files.record.removing {
                true => 0,
                false => limit.saturating_sub(now.since(files.since)).as_secs(),
            },
            retained: files.record,
        };
        let all = self.inner.store.retained().await?;
        Ok(all.into_iter().map(view).collect())
    }

    /// Records the wish for an agent with the files of a destroyed one, and begins to make it: with the same closure and
    /// limits, and a slot and a host key of its own.
    ///
    /// # Errors
    /// When no files of such an agent are kept, the name is taken, no slot is left, or the closure is gone.
    pub async fn undelete(
        &self,
        name: &GuestName,
        request: UndeleteRequest,
        actor: &str,
    ) -> Result<Accepted, EngineError> {
        self.refuse_when_stopping()?;
        let all = self.inner.store.retained().await?;
        let mut of_name = all.into_iter().map(|files| files.record).filter(|record| {
            let meant = request.id.is_none_or(|id| record.id == id);
            record.name == *name && !record.removing && meant
        });
        let Some(former) = of_name.next_back() else {
            let name = name.clone();
            return Err(StoreError::RetainedNotFound { name }.into());
        };
        let id = former.id;
        let found = self.inner.host.rootfs.retained().await?;
        if found.iter().all(|found| found.id != id) {
            return Err(HostError::from(RootfsError::FilesMissing { id }).into());
        }
        let closure = self.closure_of(&former).await?;
        let new = NewGuest {
            name: request.new_name.unwrap_or(former.name),
            kind: GuestKind::Agent,
            source: former.source,
            closure,
            limits: former.limits,
            origin: None,
        };
        self.inner.probe(Verb::Undelete, "accept", Edge::Before);
        let (guest, operation) = self.inner.store.begin_undelete(id, new, actor).await?;
        self.inner.probe(Verb::Undelete, "accept", Edge::After);
        Ok(self.begin(&guest.name, &operation).await)
    }

    /// Begins to remove the files of a destroyed agent.
    ///
    /// # Errors
    /// When no such files are kept.
    pub async fn purge(&self, id: RetainedId, actor: &str) -> Result<Accepted, EngineError> {
        self.refuse_when_stopping()?;
        let Some((files, operation)) = self.inner.begin_purge(id, actor).await? else {
            return Err(StoreError::FilesGone { id }.into());
        };
        let accepted = Accepted {
            operation: operation.id,
            guest: None,
        };
        self.spawn_purge(files.record, operation);
        Ok(accepted)
    }

    /// Removes what is to be removed, measures what was not measured, and makes room. Also after a crash.
    pub(crate) fn spawn_look_after_retained(&self) {
        let engine = self.clone();
        self.spawn(async move {
            let _at_work = engine.inner.at_work.read().await;
            if let Err(error) = engine.inner.look_after_retained().await {
                warn!(code = %error.code(), "{}", innkeeper_model::chain(&error));
            }
        });
    }

    /// Goes on with purges that a crash interrupted.
    pub(crate) async fn resume_purge(&self, operation: &Operation) -> Result<bool, EngineError> {
        let all = self.inner.store.retained().await?;
        let interrupted = |files: &RetainedFiles| files.operation == Some(operation.id);
        let Some(files) = all.into_iter().find(interrupted) else {
            return Ok(false);
        };
        self.spawn_purge(files.record, operation.clone());
        Ok(true)
    }

    fn spawn_purge(&self, retained: Retained, operation: Operation) {
        let engine = self.clone();
        self.spawn(async move {
            let _at_work = engine.inner.at_work.read().await;
            engine.inner.purge(&retained, &operation).await;
        });
    }

    /// The closure that a destroyed agent booted from, if it is there. Nothing kept it from Nix's garbage collection; one
    /// from a flake is built again.
    async fn closure_of(&self, former: &Retained) -> Result<Option<StorePath>, EngineError> {
        let closures = &self.inner.host.closures;
        if let Some(closure) = &former.closure {
            let valid = match closures.verify(closure).await {
                Ok(()) => closures.require_registered(closure).await,
                Err(error) => Err(error),
            };
            match (valid, &former.source) {
                (Ok(()), _) => return Ok(Some(closure.clone())),
                (Err(error), ClosureSource::Path(_)) => return Err(error.into()),
                (Err(_), ClosureSource::Flake(_) | ClosureSource::MemberFlake(_)) => {}
            }
        }
        Ok(None)
    }
}

impl Inner {
    /// Keeps the files of a guest that is being destroyed, or removes them if they cannot be kept: nothing may keep a
    /// guest from being destroyed.
    pub(crate) async fn retain_rootfs(
        &self,
        guest: &Guest,
        about: &About,
    ) -> Result<(), EngineError> {
        self.require_stopped(&guest.name).await?;
        let kept = match guest.retain {
            Some(id) => self.keep(guest, id).await,
            None => Ok(false),
        };
        let name = &guest.name;
        let text = match kept {
            Ok(true) => {
                let time = words(self.config.retention);
                format!("The files of {name} are kept for {time} at most: `agent undelete {name}`.")
            }
            Ok(false) => {
                self.store.cancel_retention(name).await?;
                return Ok(self.host.rootfs.remove(name).await?);
            }
            Err(error) => {
                self.store.cancel_retention(name).await?;
                self.host.rootfs.remove(name).await?;
                let reason = innkeeper_model::chain(&error);
                format!("The files of {name} were removed, since they could not be kept: {reason}.")
            }
        };
        self.journal.record(about, EventKind::Note { text });
        Ok(())
    }

    /// Says whether the files are kept now. Where space is short, somebody who destroys a guest wants some.
    async fn keep(&self, guest: &Guest, id: RetainedId) -> Result<bool, EngineError> {
        let rootfs = &self.host.rootfs;
        if rootfs.open(&guest.name).await? {
            if let Err(error) = rootfs.require_room().await
                && error.code() == Code::DiskFull
            {
                return Err(error.into());
            }
            self.host.secrets.withdraw(guest).await?;
        }
        Ok(rootfs.retain(&guest.name, id).await?)
    }

    /// Records that the files of a destroyed agent, which are in the guest's place now, are the guest's.
    pub(crate) async fn adopt_files(&self, guest: &Guest) -> Result<(), EngineError> {
        if let Some(FileWork::Adopt(_)) = guest.file_work {
            self.store.finish_file_takeover(&guest.name).await?;
        }
        Ok(())
    }

    /// Removes the oldest files of a destroyed agent, if something failed for lack of space. Says whether it is worth
    /// another attempt.
    pub(crate) async fn give_way(&self, error: &impl Explain) -> bool {
        error.code() == Code::DiskFull && self.purge_oldest().await
    }

    /// Makes room for another file tree, as far as files of destroyed agents take it.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) async fn make_room(&self) -> Result<(), EngineError> {
        loop {
            match self.host.rootfs.require_room().await {
                Err(error) if self.give_way(&error).await => {}
                result => return Ok(result?),
            }
        }
    }

    /// How much space files of destroyed agents take.
    pub(crate) async fn retained_space(&self) -> Result<RetainedSpace, EngineError> {
        let all = self.store.retained().await?;
        Ok(RetainedSpace {
            agents: all.len(),
            bytes: all.iter().filter_map(|files| files.record.bytes).sum(),
        })
    }

    async fn look_after_retained(&self) -> Result<(), EngineError> {
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
            // What stands in the way is reported to whoever needs the room.
            self.make_room().await.ok();
        }
        Ok(())
    }

    /// Removes the oldest files of a destroyed agent. Says whether there were any and they are gone.
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

    /// Removes files, unless an operation does so already. Says whether they are gone.
    async fn purge_now(&self, id: RetainedId) -> Result<bool, EngineError> {
        match self.begin_purge(id, ACTOR).await? {
            Some((files, operation)) => Ok(self.purge(&files.record, &operation).await),
            None => Ok(false),
        }
    }

    async fn begin_purge(
        &self,
        id: RetainedId,
        actor: &str,
    ) -> Result<Option<(RetainedFiles, Operation)>, EngineError> {
        self.probe(Verb::Purge, "accept", Edge::Before);
        let begun = self.store.begin_purge(id, actor).await?;
        self.probe(Verb::Purge, "accept", Edge::After);
        Ok(begun)
    }

    /// Carries a purge out. Says whether the files are gone. When they are not, they are tried again at the next round.
    async fn purge(&self, retained: &Retained, operation: &Operation) -> bool {
        let about = About {
            operation: Some(operation.id),
            guest: Some(retained.name.clone()),
        };
        let verb = Verb::Purge;
        self.journal.record(&about, EventKind::Accepted { verb });
        let removal = async { Ok(self.host.rootfs.remove_retained(retained.id).await?) };
        let removed = self.timed(verb, &about, "remove-retained", removal).await;
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
        self.journal.record(&about, kind);
        is_gone
    }
}

/// A time in whole hours, or in minutes.
fn words(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds % 3600 == 0 => format!("{} h", seconds / 3600),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}
