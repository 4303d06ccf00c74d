//! Guests' snapshots, and what is to be done with guests' files.
//!
//! An intent is the guest's [`FileWork`], which is recorded with the operation and done before anything else. It is
//! cleared in the transaction that records what came of it, and durably, since none of it may be done twice: files
//! that are restored again lose what was written since.

use innkeeper_model::{FileWork, Guest, GuestName, Operation, Snapshot, SnapshotLabel, Verb};
use rusqlite::{Connection, Row, Transaction};

use crate::codec::{Json, Time, Word};
use crate::connection::Store;
use crate::database::Durability;
use crate::error::{QueryError, StoreError};
use crate::{guests, operations};

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
        self.begin_file_work(
            guest,
            work,
            Verb::Snapshot,
            actor,
            move |transaction, guest| {
                if has(transaction, guest, &label)? {
                    let (guest, label) = (guest.clone(), label.clone());
                    return Err(StoreError::SnapshotExists { guest, label }.into());
                }
                Ok(())
            },
        )
        .await
    }

    /// Forgets a snapshot, records that it is to be deleted and begins the operation, all or nothing. Durable.
    ///
    /// # Errors
    /// [`StoreError::SnapshotNotFound`], and about the guest [`StoreError::GuestNotFound`],
    /// [`StoreError::GuestBusy`], [`StoreError::GuestLeaving`] and [`StoreError::FilesBusy`].
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
            require(transaction, guest, &label)?;
            transaction
                .prepare_cached("DELETE FROM snapshots WHERE guest = ?1 AND label = ?2")?
                .execute((Word(guest), Word(&label)))?;
            Ok(())
        })
        .await
    }

    /// Records that a guest's files are to be as in a snapshot, clears its fault and begins the operation. Durable.
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
            require(transaction, guest, &label)?;
            guests::set(transaction, guest, "fault", &None::<String>)
        })
        .await
    }

    async fn begin_file_work(
        &self,
        guest: &GuestName,
        work: FileWork,
        verb: Verb,
        actor: &str,
        also: impl FnOnce(&Transaction<'_>, &GuestName) -> Result<(), QueryError> + Send + 'static,
    ) -> Result<(Guest, Operation), StoreError> {
        let (name, actor) = (guest.clone(), actor.to_owned());
        self.run("record what is to be done with files", move |database| {
            if verb == Verb::Snapshot {
                database.require_space()?;
            }
            database.write(Durability::Now, |transaction| {
                let guest = guests::idle(transaction, &name)?;
                if let Some(work) = guest.file_work {
                    return Err(StoreError::FilesBusy { guest: name, work }.into());
                }
                also(transaction, &name)?;
                guests::set(transaction, &name, "file_work", &Json(&work))?;
                let operation = operations::begin(transaction, Some(&name), verb, &actor)?;
                let file_work = Some(work);
                Ok((Guest { file_work, ..guest }, operation))
            })
        })
        .await
    }

    /// Records that what was to be done with a guest's files is done, and the snapshot if one was taken. Durable.
    ///
    /// # Errors
    /// [`StoreError::GuestNotFound`].
    pub async fn finish_file_work(&self, guest: &GuestName) -> Result<(), StoreError> {
        let name = guest.clone();
        self.run("record what was done with files", move |database| {
            database.write(Durability::Now, |transaction| {
                let guest = guests::there(transaction, &name)?;
                if let Some(FileWork::TakeSnapshot(label)) = &guest.file_work {
                    insert(transaction, &name, label)?;
                }
                guests::set(transaction, &name, "file_work", &None::<String>)
            })
        })
        .await
    }

    /// Records what is to be done with a guest's files instead, or that nothing is. Durable.
    ///
    /// # Errors
    /// [`StoreError::GuestNotFound`].
    pub async fn set_file_work(
        &self,
        guest: &GuestName,
        work: Option<FileWork>,
    ) -> Result<(), StoreError> {
        let name = guest.clone();
        self.run("record what is to be done with files", move |database| {
            database.write(Durability::Now, |transaction| {
                guests::set(transaction, &name, "file_work", &work.map(Json))
            })
        })
        .await
    }

    /// The snapshots of all guests, by guest, the oldest first.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn snapshots(&self) -> Result<Vec<Snapshot>, StoreError> {
        self.run("read the snapshots", |database| {
            let snapshots = database
                .connection
                .prepare_cached("SELECT * FROM snapshots ORDER BY guest, created_at, label")?
                .query_map((), read)?
                .collect::<Result<_, _>>()?;
            Ok(snapshots)
        })
        .await
    }
}

/// Refuses when there is no such snapshot.
pub(crate) fn require(
    connection: &Connection,
    guest: &GuestName,
    label: &SnapshotLabel,
) -> Result<(), QueryError> {
    if has(connection, guest, label)? {
        return Ok(());
    }
    let (guest, label) = (guest.clone(), label.clone());
    Err(StoreError::SnapshotNotFound { guest, label }.into())
}

fn has(
    connection: &Connection,
    guest: &GuestName,
    label: &SnapshotLabel,
) -> Result<bool, QueryError> {
    let has = connection
        .prepare_cached("SELECT 1 FROM snapshots WHERE guest = ?1 AND label = ?2")?
        .exists((Word(guest), Word(label)))?;
    Ok(has)
}

fn insert(
    connection: &Connection,
    guest: &GuestName,
    label: &SnapshotLabel,
) -> Result<(), QueryError> {
    connection
        .prepare_cached("INSERT INTO snapshots (guest, label, created_at) VALUES (?1, ?2, ?3)")?
        .execute((Word(guest), Word(label), Time::now()))?;
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<Snapshot> {
    Ok(Snapshot {
        guest: row.get::<_, Word<_>>("guest")?.0,
        label: row.get::<_, Word<_>>("label")?.0,
        created_at: row.get::<_, Time>("created_at")?.0,
    })
}
