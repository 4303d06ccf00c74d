//! Retained files of destroyed agents: listed, undeleted, purged on request.

use innkeeper_facilities::{FacilityError, FilesMissing};
use innkeeper_model::api::{Accepted, RetainedView, UndeleteRequest};
use innkeeper_model::{
    ClosureSource, GuestKind, GuestName, Operation, Retained, RetainedId, StorePath, Verb,
};
use innkeeper_store::{NewGuest, RetainedFiles, StoreError};

use crate::EngineError;
use crate::engine::Engine;
use crate::probe::Edge;
use crate::requests::refuse_reserved;

impl Engine {
    /// Returns the destroyed agents whose files are retained, oldest first.
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

    /// Records an agent that adopts the files of a destroyed one, and starts its creation. The new agent keeps closure and
    /// limits, and gets a new slot and a new host key.
    ///
    /// # Errors
    /// When no such files are retained, the name is taken, the slots are exhausted, the closure is gone, or the host
    /// cannot or may not give another guest the agent's user ids or nesting, or its memory runs short.
    pub async fn undelete(
        &self,
        name: &GuestName,
        request: UndeleteRequest,
        actor: &str,
    ) -> Result<Accepted, EngineError> {
        self.refuse_when_stopping()?;
        if let Some(name) = &request.new_name {
            refuse_reserved(name)?;
        }
        let all = self.inner.store.retained().await?;
        let mut matching = all.into_iter().map(|files| files.record).filter(|record| {
            let id_matches = request.id.is_none_or(|id| record.id == id);
            record.name == *name && !record.removing && id_matches
        });
        let Some(former) = matching.next_back() else {
            let name = name.clone();
            return Err(StoreError::RetainedNotFound { name }.into());
        };
        self.inner.make_memory().await?;
        self.require_means(&former.limits)?;
        let id = former.id;
        let found = self.inner.host.rootfs.retained().await?;
        if found.iter().all(|found| found.id != id) {
            return Err(FacilityError::from(FilesMissing { id }).into());
        }
        let closure = self.valid_closure(&former).await?;
        let new = NewGuest {
            name: request.new_name.unwrap_or(former.name),
            kind: GuestKind::Agent,
            source: former.source,
            closure,
            limits: former.limits,
            origin: None,
            declared: false,
            idle_policy: None,
        };
        self.inner.probe(Verb::Undelete, "accept", Edge::Before);
        let begun = self.with_slot(|| self.inner.store.begin_undelete(id, new.clone(), actor));
        let (guest, operation) = begun.await?;
        self.inner.probe(Verb::Undelete, "accept", Edge::After);
        Ok(self.begin(&guest.name, &operation).await)
    }

    /// Starts to delete the files of a destroyed agent.
    ///
    /// # Errors
    /// When no such files are retained.
    pub async fn purge(&self, id: RetainedId, actor: &str) -> Result<Accepted, EngineError> {
        self.refuse_when_stopping()?;
        let engine = self.clone();
        let actor = actor.to_owned();
        // The reconciliation starts only abandoned operations on guests, so a canceled request must not abandon this one.
        self.run_in_task(async move {
            let Some((files, operation)) = engine.inner.begin_purge(id, &actor).await? else {
                return Err(StoreError::FilesGone { id }.into());
            };
            let accepted = Accepted {
                operation: operation.id,
                guest: None,
            };
            engine.spawn_purge(files.record, operation);
            Ok(accepted)
        })
        .await
    }

    /// Resumes a purge that a crash interrupted. Returns false if the operation is no purge.
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
            let _activity = engine.inner.activity.read().await;
            let lock = engine.inner.purge_lock.lock().await;
            engine.inner.purge(&retained, &operation, &lock).await;
        });
    }

    /// Returns the closure that a destroyed agent booted from, if it is still valid: retention does not protect it from
    /// Nix's garbage collection. Returns none for a flake, which is built again.
    async fn valid_closure(&self, former: &Retained) -> Result<Option<StorePath>, EngineError> {
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
