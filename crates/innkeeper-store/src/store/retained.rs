//! Retention of destroyed agents' files; see [`crate::sql::retained`] about the rows.

use innkeeper_model::{
    DesiredState, Failure, FileWork, Guest, GuestKind, GuestName, Operation, OperationId,
    RetainedId, Verb,
};
use rusqlite::Transaction;

use super::{Store, guests as guest_rules};
use crate::clock::RunningTime;
use crate::database::Durability;
use crate::error::{QueryError, StoreError};
use crate::sql::guests::NewGuest;
use crate::sql::retained::{self, RetainedFiles};
use crate::sql::{guests, operations, previews};

impl Store {
    /// Records that a guest should not exist and begins the operation that removes it, as [`Self::begin_change`] does for
    /// [`Verb::Destroy`]. With `keep`, an agent's files are retained; the returned [`Guest::retain`] is their number, if
    /// they are. Durable.
    ///
    /// If the guest was being destroyed already, the earlier decision stays, unless `keep` is false now.
    ///
    /// # Errors
    /// [`StoreError::GuestNotFound`].
    pub async fn begin_destroy(
        &self,
        name: &GuestName,
        keep: bool,
        actor: &str,
    ) -> Result<(Guest, Operation), StoreError> {
        let (name, actor) = (name.clone(), actor.to_owned());
        self.run("record the desired state of a guest", move |database| {
            let now = database.clock.now();
            database.write(Durability::Now, |transaction| {
                let before = guests::require(transaction, &name)?;
                let (desired, verb) = (DesiredState::Absent, Verb::Destroy);
                let (guest, operation) =
                    guest_rules::begin_change(transaction, &name, desired, verb, &actor)?;
                let retain = match keep {
                    false => {
                        retained::doom_files_of(transaction, &name)?;
                        None
                    }
                    true if before.desired == DesiredState::Absent => before.retain,
                    true => retain_files_of(transaction, &before, now)?,
                };
                guests::set(transaction, &name, "retain", &retain.map(|id| id.0))?;
                Ok((Guest { retain, ..guest }, operation))
            })
        })
        .await
    }

    /// Records that the files of a guest that is being destroyed cannot be retained, and are removed. Durable.
    ///
    /// # Errors
    /// [`StoreError::GuestNotFound`].
    pub async fn cancel_retention(&self, name: &GuestName) -> Result<(), StoreError> {
        let name = name.clone();
        let action = "cancel the retention of files";
        self.write(action, Durability::Now, move |transaction| {
            retained::doom_files_of(transaction, &name)?;
            guests::clear(transaction, &name, "retain")
        })
        .await
    }

    /// Records that an agent should be created again with the retained files `id`: takes its name and a slot and begins the
    /// operation, all or nothing. Durable.
    ///
    /// # Errors
    /// [`StoreError::FilesGone`], [`StoreError::UndeletedNameTaken`], [`StoreError::NameOfPreview`],
    /// [`StoreError::NoSlotLeft`] and [`StoreError::NoSlotRun`].
    pub async fn begin_undelete(
        &self,
        id: RetainedId,
        new: NewGuest,
        actor: &str,
    ) -> Result<(Guest, Operation), StoreError> {
        let (range, actor) = (self.range, actor.to_owned());
        self.insert("record a guest", move |transaction| {
            let former = retained::find(transaction, id)?
                .filter(|files| !files.record.removing)
                .ok_or(StoreError::FilesGone { id })?;
            if guests::find(transaction, &new.name)?.is_some() {
                return Err(StoreError::UndeletedNameTaken {
                    name: new.name,
                    former: former.record.name,
                }
                .into());
            }
            previews::refuse_name(transaction, &new.name)?;
            let (work, verb) = (FileWork::Adopt(id), Verb::Undelete);
            let undeleted =
                guest_rules::insert(transaction, range, new, Some(&work), verb, &actor)?;
            retained::attach(transaction, id, &undeleted.0.name)?;
            Ok(undeleted)
        })
        .await
    }

    /// Records that an undeleted guest has taken over its files: they are its own now. Durable.
    ///
    /// # Errors
    /// [`StoreError::GuestNotFound`].
    pub async fn finish_file_takeover(&self, name: &GuestName) -> Result<(), StoreError> {
        let name = name.clone();
        let action = "record the result of file work";
        self.write(action, Durability::Now, move |transaction| {
            guests::clear(transaction, &name, "file_work")?;
            retained::delete_files_of(transaction, &name)
        })
        .await
    }

    /// Begins the operation that removes retained files. Returns `None` when they do not exist, a guest has them, or an
    /// operation removes them already. Durable. Never fails for lack of space.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn begin_purge(
        &self,
        id: RetainedId,
        actor: &str,
    ) -> Result<Option<(RetainedFiles, Operation)>, StoreError> {
        let actor = actor.to_owned();
        self.write("record an operation", Durability::Now, move |transaction| {
            let files = retained::find(transaction, id)?;
            let Some(mut files) = files.filter(|files| files.operation.is_none()) else {
                return Ok(None);
            };
            let operation = operations::begin(transaction, None, Verb::Purge, &actor)?;
            retained::begin_removal(transaction, id, operation.id)?;
            files.record.removing = true;
            files.operation = Some(operation.id);
            Ok(Some((files, operation)))
        })
        .await
    }

    /// Records the result of a purge: the files are gone, or are left to another purge. Durable.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn end_purge(
        &self,
        operation: OperationId,
        failure: Option<&Failure>,
    ) -> Result<(), StoreError> {
        let failure = failure.cloned();
        let action = "record the result of an operation";
        self.write(action, Durability::Now, move |transaction| {
            retained::end_removal(transaction, operation, failure.is_some())?;
            operations::end(transaction, operation, failure.as_ref())
        })
        .await
    }

    /// Records the disk usage of retained files, in bytes.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn set_retained_bytes(&self, id: RetainedId, bytes: u64) -> Result<(), StoreError> {
        let action = "record the disk usage of files";
        self.write(action, Durability::Soon, move |transaction| {
            retained::set_bytes(transaction, id, bytes)
        })
        .await
    }

    /// Returns the retained files that no guest has, the oldest first.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn retained(&self) -> Result<Vec<RetainedFiles>, StoreError> {
        self.read("read the retained files", retained::list).await
    }

    /// Returns the numbers of all retained files, including those that a guest has.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn retained_ids(&self) -> Result<Vec<RetainedId>, StoreError> {
        self.read("read the retained files", retained::ids).await
    }
}

/// Retains the files of a guest that is being destroyed, and returns their number.
fn retain_files_of(
    transaction: &Transaction<'_>,
    guest: &Guest,
    now: RunningTime,
) -> Result<Option<RetainedId>, QueryError> {
    match (guest.kind, &guest.file_work) {
        // An incomplete copy was never usable.
        (GuestKind::Preview, _) | (_, Some(FileWork::CopyOf(_))) => Ok(None),
        // Files that were not taken over yet keep their number.
        (_, Some(FileWork::Adopt(id))) => Ok(Some(*id)),
        _ => retained::insert(transaction, guest, now).map(Some),
    }
}
