//! Snapshots of agents' files, returning to them, and agents that begin as a copy of another one.
//!
//! What is to be done with a guest's files is recorded in its record, and done when the guest is driven: that is
//! the first half of this module and the second.

use innkeeper_model::api::{Accepted, ForkRequest, PoolReport, SnapshotAccepted, SnapshotRequest};
use innkeeper_model::{
    DesiredState, FileWork, Guest, GuestKind, GuestName, Operation, Origin, Snapshot,
    SnapshotLabel, Verb,
};
use innkeeper_store::{NewGuest, StoreError};
use jiff::Timestamp;

use crate::EngineError;
use crate::engine::{Engine, Inner};
use crate::probe::Edge;

impl Engine {
    /// Records the wish for a snapshot of an agent's files, and begins to take it.
    ///
    /// # Errors
    /// When there is no such agent, it is busy or has a snapshot of that label, there is no room, or the agent runs
    /// and its files cannot be copied meanwhile.
    pub async fn snapshot(
        &self,
        name: &GuestName,
        request: SnapshotRequest,
        actor: &str,
    ) -> Result<SnapshotAccepted, EngineError> {
        let guest = self.agent(name).await?;
        self.inner.make_room().await?;
        self.refuse_while_running(&guest).await?;
        let label = match request.label {
            Some(label) => label,
            None => self.made_up_label(name).await?,
        };
        let begun = self.inner.store.begin_snapshot(name, &label, actor);
        let accepted = self.begin_work(Verb::Snapshot, begun).await?;
        Ok(SnapshotAccepted { accepted, label })
    }

    /// Records that a snapshot is to be deleted, and begins to do so.
    ///
    /// # Errors
    /// When there is no such agent or snapshot, or the agent is busy.
    pub async fn delete_snapshot(
        &self,
        name: &GuestName,
        label: &SnapshotLabel,
        actor: &str,
    ) -> Result<Accepted, EngineError> {
        self.agent(name).await?;
        let begun = self.inner.store.begin_snapshot_removal(name, label, actor);
        self.begin_work(Verb::DeleteSnapshot, begun).await
    }

    /// Records that an agent's files are to be as in a snapshot, and begins to make them so. An agent that should
    /// run is stopped for it and started again.
    ///
    /// # Errors
    /// When there is no such agent or snapshot, the agent is busy, or there is no room.
    pub async fn restore_snapshot(
        &self,
        name: &GuestName,
        label: &SnapshotLabel,
        actor: &str,
    ) -> Result<Accepted, EngineError> {
        self.agent(name).await?;
        self.inner.make_room().await?;
        let begun = self.inner.store.begin_snapshot_restore(name, label, actor);
        self.begin_work(Verb::RestoreSnapshot, begun).await
    }

    /// Records the wish for an agent that begins as a copy of another one, and begins to make it: with the same
    /// closure, limits and files, and a slot, a host key and a machine id of its own.
    ///
    /// # Errors
    /// As [`Self::snapshot`], and when the new name is taken or no slot is left.
    pub async fn fork(
        &self,
        name: &GuestName,
        request: ForkRequest,
        actor: &str,
    ) -> Result<Accepted, EngineError> {
        let guest = self.agent(name).await?;
        self.inner.make_room().await?;
        if request.snapshot.is_none() {
            self.refuse_while_running(&guest).await?;
        }
        let new = NewGuest {
            name: request.name,
            kind: GuestKind::Agent,
            source: guest.source,
            closure: guest.closure,
            limits: guest.limits,
            origin: Some(Origin {
                guest: guest.name,
                snapshot: request.snapshot,
            }),
        };
        let begun = self.inner.store.create_guest(new, actor);
        self.begin_work(Verb::Fork, begun).await
    }

    /// The snapshots of all agents, by agent, the oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn snapshots(&self) -> Result<Vec<Snapshot>, EngineError> {
        Ok(self.inner.store.snapshots().await?)
    }

    /// The snapshots of one agent, the oldest first.
    ///
    /// # Errors
    /// When there is no such agent.
    pub async fn snapshots_of(&self, name: &GuestName) -> Result<Vec<Snapshot>, EngineError> {
        self.agent(name).await?;
        let mut snapshots = self.snapshots().await?;
        snapshots.retain(|snapshot| snapshot.guest == *name);
        Ok(snapshots)
    }

    /// Where guests keep their files, and how full it is.
    ///
    /// # Errors
    /// When the host cannot be asked.
    pub async fn pool(&self) -> Result<PoolReport, EngineError> {
        Ok(PoolReport {
            retained: self.inner.retained_space().await?,
            ..self.inner.host.rootfs.pool().await?
        })
    }

    /// An agent's record. What is asked of previews' guests here would be undone by their next commit.
    async fn agent(&self, name: &GuestName) -> Result<Guest, EngineError> {
        self.refuse_when_stopping()?;
        let guest = self.guest(name).await?;
        match guest.kind {
            GuestKind::Agent => Ok(guest),
            GuestKind::Preview => Err(EngineError::Preview(guest.name)),
        }
    }

    /// Refuses at once what [`Inner::require_stopped`] would refuse later.
    async fn refuse_while_running(&self, guest: &Guest) -> Result<(), EngineError> {
        if guest.desired == DesiredState::Running
            && !(self.inner.host.rootfs)
                .copies_while_running(&guest.name)
                .await?
        {
            return Err(EngineError::MustNotRun(guest.name.clone()));
        }
        Ok(())
    }

    async fn made_up_label(&self, name: &GuestName) -> Result<SnapshotLabel, EngineError> {
        let taken = self.snapshots_of(name).await?;
        let now = Timestamp::now();
        let free = (1..)
            .map(|attempt| SnapshotLabel::of_time(now, attempt))
            .find(|label| taken.iter().all(|snapshot| snapshot.label != *label));
        free.ok_or_else(|| EngineError::Invalid("all labels are taken".to_owned()))
    }

    async fn begin_work(
        &self,
        verb: Verb,
        begun: impl Future<Output = Result<(Guest, Operation), StoreError>>,
    ) -> Result<Accepted, EngineError> {
        self.inner.probe(verb, "accept", Edge::Before);
        let (guest, operation) = begun.await?;
        self.inner.probe(verb, "accept", Edge::After);
        Ok(self.begin(&guest.name, &operation).await)
    }
}

impl Inner {
    /// Makes the guest's file tree. While it is copied, nothing else is done with what it is copied from.
    pub(crate) async fn ensure_rootfs(&self, guest: &Guest) -> Result<(), EngineError> {
        let Some(FileWork::CopyOf(origin)) = &guest.file_work else {
            return Ok(self.host.rootfs.ensure(guest).await?);
        };
        // No two guests wait for each other here: what a copy is made of was complete when that was begun.
        let _origin = self.locks.lock(&origin.guest).await;
        if self.store.guest(&origin.guest).await?.is_none() {
            return Err(EngineError::GuestNotFound(origin.guest.clone()));
        }
        if origin.snapshot.is_none() && !self.copies_while_running(&origin.guest).await? {
            self.require_stopped(&origin.guest).await?;
        }
        Ok(self.host.rootfs.ensure(guest).await?)
    }

    pub(crate) async fn forget_identity(&self, guest: &Guest) -> Result<(), EngineError> {
        if let Some(FileWork::CopyOf(origin)) = &guest.file_work {
            let secrets = &self.host.secrets;
            secrets.forget_identity(guest, &origin.guest).await?;
            self.store.finish_file_work(&guest.name).await?;
        }
        Ok(())
    }

    pub(crate) async fn take_snapshot(&self, guest: &Guest) -> Result<(), EngineError> {
        if let Some(FileWork::TakeSnapshot(label)) = &guest.file_work {
            if !self.copies_while_running(&guest.name).await? {
                self.require_stopped(&guest.name).await?;
            }
            self.host.rootfs.snapshot(&guest.name, label).await?;
            self.store.finish_file_work(&guest.name).await?;
        }
        Ok(())
    }

    pub(crate) async fn remove_snapshot(&self, guest: &Guest) -> Result<(), EngineError> {
        if let Some(FileWork::DeleteSnapshot(label)) = &guest.file_work {
            self.host.rootfs.delete_snapshot(&guest.name, label).await?;
            self.store.finish_file_work(&guest.name).await?;
        }
        Ok(())
    }

    /// The work is done durably before the guest starts: done twice, it would take away what the guest wrote since.
    pub(crate) async fn restore_rootfs(&self, guest: &Guest) -> Result<(), EngineError> {
        if let Some(FileWork::Restore(label)) = &guest.file_work {
            self.require_stopped(&guest.name).await?;
            self.host.rootfs.restore(&guest.name, label).await?;
            self.store.finish_file_work(&guest.name).await?;
        }
        Ok(())
    }

    /// Gives up what was to be done with a guest's files and failed. Says whether there was something: a snapshot
    /// that was not taken leaves nothing behind, and a guest whose files stay as they are goes on as before.
    pub(crate) async fn give_up_file_work(&self, name: &GuestName) -> Result<bool, EngineError> {
        let guest = self.store.guest(name).await?;
        let instead = match guest.and_then(|guest| guest.file_work) {
            Some(FileWork::TakeSnapshot(label)) => Some(FileWork::DeleteSnapshot(label)),
            Some(FileWork::Restore(_)) => None,
            Some(FileWork::CopyOf(_) | FileWork::DeleteSnapshot(_) | FileWork::Adopt(_)) | None => {
                return Ok(false);
            }
        };
        self.store.set_file_work(name, instead).await?;
        Ok(true)
    }

    async fn copies_while_running(&self, name: &GuestName) -> Result<bool, EngineError> {
        Ok(self.host.rootfs.copies_while_running(name).await?)
    }

    pub(crate) async fn require_stopped(&self, name: &GuestName) -> Result<(), EngineError> {
        let unit = self.host.units.phase(name).await?;
        if unit.is_some_and(|unit| unit.phase.is_alive()) {
            return Err(EngineError::MustNotRun(name.clone()));
        }
        Ok(())
    }
}
