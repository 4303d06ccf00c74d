//! Snapshots and forks of agents. Requests record file work, which [`crate::file_work`] executes when the agent is
//! driven.

use std::collections::BTreeMap;

use innkeeper_model::api::{Accepted, ForkRequest, PoolReport, SnapshotAccepted, SnapshotRequest};
use innkeeper_model::{
    DesiredState, Guest, GuestKind, GuestName, Operation, Origin, Snapshot, SnapshotLabel, Verb,
};
use innkeeper_store::{NewGuest, StoreError};
use jiff::Timestamp;

use crate::EngineError;
use crate::engine::Engine;
use crate::probe::Edge;
use crate::requests::refuse_reserved;

impl Engine {
    /// Records a snapshot of an agent's files, and starts to take it.
    ///
    /// # Errors
    /// When the agent does not exist, is busy, has a snapshot of that label, or runs although its files can only be
    /// copied while it is stopped; and when space is exhausted.
    pub async fn snapshot(
        &self,
        name: &GuestName,
        request: SnapshotRequest,
        actor: &str,
    ) -> Result<SnapshotAccepted, EngineError> {
        let guest = self.agent(name).await?;
        self.make_room().await?;
        self.refuse_while_running(&guest).await?;
        let label = match request.label {
            Some(label) => label,
            None => self.generated_label(name).await?,
        };
        let begun = self.inner.store.begin_snapshot(name, &label, actor);
        let accepted = self.begin_with(Verb::Snapshot, begun).await?;
        Ok(SnapshotAccepted { accepted, label })
    }

    /// Records the deletion of a snapshot, and starts it.
    ///
    /// # Errors
    /// When the agent or the snapshot does not exist, or the agent is busy.
    pub async fn delete_snapshot(
        &self,
        name: &GuestName,
        label: &SnapshotLabel,
        actor: &str,
    ) -> Result<Accepted, EngineError> {
        self.agent(name).await?;
        let begun = self.inner.store.begin_snapshot_removal(name, label, actor);
        self.begin_with(Verb::DeleteSnapshot, begun).await
    }

    /// Records the restore of an agent's files from a snapshot, and starts it. A running agent is stopped and started
    /// again.
    ///
    /// # Errors
    /// When the agent or the snapshot does not exist, the agent is busy, or space is exhausted.
    pub async fn restore_snapshot(
        &self,
        name: &GuestName,
        label: &SnapshotLabel,
        actor: &str,
    ) -> Result<Accepted, EngineError> {
        self.agent(name).await?;
        self.make_room().await?;
        let begun = self.inner.store.begin_snapshot_restore(name, label, actor);
        self.begin_with(Verb::RestoreSnapshot, begun).await
    }

    /// Records an agent as a copy of another one, and starts its creation. It has the same closure, limits and files,
    /// and its own slot, host key and machine id.
    ///
    /// # Errors
    /// As [`Self::snapshot`], and when the new name is taken, the slots are exhausted, the host cannot or may not give
    /// another guest the agent's user ids or nesting, or its memory runs short.
    pub async fn fork(
        &self,
        name: &GuestName,
        request: ForkRequest,
        actor: &str,
    ) -> Result<Accepted, EngineError> {
        refuse_reserved(&request.name)?;
        let guest = self.agent(name).await?;
        self.inner.make_memory().await?;
        self.require_means(&guest.limits)?;
        self.make_room().await?;
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
            declared: false,
            idle_policy: guest.idle_policy,
        };
        let begun = self.with_slot(|| self.inner.store.create_guest(new.clone(), actor));
        self.begin_with(Verb::Fork, begun).await
    }

    /// Returns the snapshots of all agents, by agent, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn snapshots(&self) -> Result<Vec<Snapshot>, EngineError> {
        Ok(self.inner.store.snapshots().await?)
    }

    /// Returns an agent's snapshots, oldest first.
    ///
    /// # Errors
    /// When the agent does not exist.
    pub async fn snapshots_of(&self, name: &GuestName) -> Result<Vec<Snapshot>, EngineError> {
        self.agent(name).await?;
        let mut snapshots = self.snapshots().await?;
        snapshots.retain(|snapshot| snapshot.guest == *name);
        Ok(snapshots)
    }

    /// Returns the storage of guests' files, and how full it is.
    ///
    /// # Errors
    /// When the host cannot be queried.
    pub async fn pool(&self) -> Result<PoolReport, EngineError> {
        Ok(PoolReport {
            retained: self.inner.retained_space().await?,
            ..self.inner.host.rootfs.pool().await?
        })
    }

    /// Returns the disk space of guests, in bytes: the size of a guest's volume; of files in a directory, their space at the
    /// last measurement.
    ///
    /// # Errors
    /// When the store or the host cannot be queried.
    pub async fn disk_space(&self) -> Result<BTreeMap<GuestName, u64>, EngineError> {
        let guests = self.inner.store.guests().await?.into_iter();
        let measured = guests.filter_map(|guest| {
            let bytes = self.inner.disks.bytes(&guest)?;
            Some((guest.name, bytes))
        });
        let mut space: BTreeMap<GuestName, u64> = measured.collect();
        for volume in self.inner.host.rootfs.pool().await?.volumes {
            if let (Some(guest), None) = (volume.guest, volume.snapshot) {
                space.insert(guest, volume.size_bytes);
            }
        }
        Ok(space)
    }

    /// Returns an agent's record. Refuses a preview's guest: its next commit would undo the request.
    pub(crate) async fn agent(&self, name: &GuestName) -> Result<Guest, EngineError> {
        self.refuse_when_stopping()?;
        let guest = self.guest(name).await?;
        match guest.kind {
            GuestKind::Agent => Ok(guest),
            GuestKind::Preview => Err(EngineError::Preview(guest.name)),
        }
    }

    /// Refuses early, before an operation is recorded.
    async fn refuse_while_running(&self, guest: &Guest) -> Result<(), EngineError> {
        let is_awake = guest.desired == DesiredState::Running && guest.rests().is_none();
        if is_awake
            && !(self.inner.host.rootfs)
                .copies_while_running(&guest.name)
                .await?
        {
            return Err(EngineError::MustNotRun(guest.name.clone()));
        }
        Ok(())
    }

    async fn generated_label(&self, name: &GuestName) -> Result<SnapshotLabel, EngineError> {
        let taken = self.snapshots_of(name).await?;
        let now = Timestamp::now();
        let free = (1..)
            .map(|attempt| SnapshotLabel::of_time(now, attempt))
            .find(|label| taken.iter().all(|snapshot| snapshot.label != *label));
        free.ok_or_else(|| EngineError::Invalid("all labels are taken".to_owned()))
    }

    pub(crate) async fn begin_with(
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
