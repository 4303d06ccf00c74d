//! Guests' snapshots and file work.
//!
//! The intent is the guest's [`FileWork`], which is recorded with the operation and done before anything else. It is
//! cleared durably, in the transaction that records its result: file work must not be repeated, since a second restore
//! would lose everything written since the first.

use innkeeper_model::{FileWork, Guest, GuestName, Operation, Snapshot, SnapshotLabel, Verb};
use rusqlite::Transaction;

use super::Store;
use super::guests::require_idle;
use crate::codec::Json;
use crate::database::Durability;
use crate::error::{QueryError, StoreError};
use crate::sql::{guests, operations, snapshots};

impl Store {
    /// Records that a snapshot is to be taken and begins the operation. Durable.
    ///
    /// # Errors
    /// [`StoreError::SnapshotExists`], and those of [`Self::begin_snapshot_removal`] about the guest.
    pub async fn begin_snapshot(
        &self,
        guest: &GuestName,
        label: &SnapshotLabel,
        actor: &str,
    ) -> Result<(Guest, Operation), StoreError> {
        let work = FileWork::TakeSnapshot(label.clone());
        let label = label.clone();
        let verb = Verb::Snapshot;
        self.begin_file_work(guest, work, verb, actor, move |transaction, guest| {
            if snapshots::exists(transaction, guest, &label)? {
                let guest = guest.clone();
                return Err(StoreError::SnapshotExists { guest, label }.into());
            }
            Ok(())
        })
        .await
    }

    /// Deletes a snapshot's record, records that the snapshot is to be deleted and begins the operation, all or nothing.
    /// Durable.
    ///
    /// # Errors
    /// [`StoreError::SnapshotNotFound`], and about the guest [`StoreError::GuestNotFound`], [`StoreError::GuestBusy`],
    /// [`StoreError::GuestLeaving`] and [`StoreError::FilesBusy`].
    pub async fn begin_snapshot_removal(
        &self,
        guest: &GuestName,
        label: &SnapshotLabel,
        actor: &str,
    ) -> Result<(Guest, Operation), StoreError> {
        let work = FileWork::DeleteSnapshot(label.clone());
        let label = label.clone();
        let verb = Verb::DeleteSnapshot;
        self.begin_file_work(guest, work, verb, actor, move |transaction, guest| {
            snapshots::require(transaction, guest, &label)?;
            snapshots::delete(transaction, guest, &label)
        })
        .await
    }

    /// Records that a guest's files are to be restored from a snapshot, clears its fault and begins the operation. Durable.
    ///
    /// # Errors
    /// As [`Self::begin_snapshot_removal`].
    pub async fn begin_snapshot_restore(
        &self,
        guest: &GuestName,
        label: &SnapshotLabel,
        actor: &str,
    ) -> Result<(Guest, Operation), StoreError> {
        let work = FileWork::Restore(label.clone());
        let label = label.clone();
        let verb = Verb::RestoreSnapshot;
        self.begin_file_work(guest, work, verb, actor, move |transaction, guest| {
            snapshots::require(transaction, guest, &label)?;
            guests::clear(transaction, guest, "fault")
        })
        .await
    }

    async fn begin_file_work(
        &self,
        guest: &GuestName,
        work: FileWork,
        verb: Verb,
        actor: &str,
        prepare: impl FnOnce(&Transaction<'_>, &GuestName) -> Result<(), QueryError> + Send + 'static,
    ) -> Result<(Guest, Operation), StoreError> {
        let (name, actor) = (guest.clone(), actor.to_owned());
        self.run("record file work", move |database| {
            if verb == Verb::Snapshot {
                database.require_space()?;
            }
            database.write(Durability::Now, |transaction| {
                let guest = require_idle(transaction, &name)?;
                if let Some(work) = guest.file_work {
                    return Err(StoreError::FilesBusy { guest: name, work }.into());
                }
                prepare(transaction, &name)?;
                guests::set(transaction, &name, "file_work", &Json(&work))?;
                let operation = operations::begin(transaction, Some(&name), verb, &actor)?;
                let file_work = Some(work);
                Ok((Guest { file_work, ..guest }, operation))
            })
        })
        .await
    }

    /// Records that a guest's file work is done and, if it took a snapshot, the snapshot. Durable.
    ///
    /// # Errors
    /// [`StoreError::GuestNotFound`].
    pub async fn finish_file_work(&self, guest: &GuestName) -> Result<(), StoreError> {
        let name = guest.clone();
        let action = "record the result of file work";
        self.write(action, Durability::Now, move |transaction| {
            let guest = guests::require(transaction, &name)?;
            if let Some(FileWork::TakeSnapshot(label)) = &guest.file_work {
                snapshots::insert(transaction, &name, label)?;
            }
            guests::clear(transaction, &name, "file_work")
        })
        .await
    }

    /// Replaces a guest's file work. Durable.
    ///
    /// # Errors
    /// [`StoreError::GuestNotFound`].
    pub async fn set_file_work(
        &self,
        guest: &GuestName,
        work: Option<FileWork>,
    ) -> Result<(), StoreError> {
        let name = guest.clone();
        let action = "record file work";
        self.write(action, Durability::Now, move |transaction| {
            guests::set(transaction, &name, "file_work", &work.map(Json))
        })
        .await
    }

    /// Returns the snapshots of all guests, by guest, the oldest first.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn snapshots(&self) -> Result<Vec<Snapshot>, StoreError> {
        self.read("read the snapshots", snapshots::list).await
    }
}
