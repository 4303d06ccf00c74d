//! Files of destroyed agents, which are kept for a while.
//!
//! A row is there from the intent to destroy an agent until its files are gone, or belong to an agent again. While a
//! guest's record exists that has something to do with the files, the row names the guest (`guest`) and is neither listed
//! nor removed. `doomed` rows are removed as soon as they name no guest; nothing brings them back.

use innkeeper_model::{
    DesiredState, FileWork, Guest, GuestKind, GuestName, Operation, OperationId, Retained,
    RetainedId, Verb,
};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, named_params};

use crate::codec::{Json, Time, Word};
use crate::connection::Store;
use crate::database::Durability;
use crate::error::{QueryError, StoreError};
use crate::guests::NewGuest;
use crate::running_time::RunningTime;
use crate::{guests, operations, previews, slots};

/// A destroyed agent's files, as the store keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetainedFiles {
    /// The agent.
    pub record: Retained,
    /// The running time from which on they are kept.
    pub since: RunningTime,
    /// The operation that removes them, if one has begun.
    pub operation: Option<OperationId>,
}

impl Store {
    /// Records that a guest should not exist and begins the operation that removes it, as [`Self::begin_change`] does for
    /// [`Verb::Destroy`]. With `keep`, the files of an agent are to be kept: [`Guest::retain`] says whether they are. Durable.
    ///
    /// A guest that was to be absent before stays as it was decided then, unless `keep` is false now.
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
        self.run("record what a guest should be", move |database| {
            let now = database.clock.now();
            database.write(Durability::Now, |transaction| {
                let before = guests::there(transaction, &name)?;
                let (guest, operation) = guests::change(
                    transaction,
                    &name,
                    DesiredState::Absent,
                    Verb::Destroy,
                    &actor,
                )?;
                let retain = match keep {
                    false => {
                        doom_files_of(transaction, &name)?;
                        None
                    }
                    true if before.desired == DesiredState::Absent => before.retain,
                    true => keep_files_of(transaction, &before, now)?,
                };
                guests::set(transaction, &name, "retain", &retain.map(|id| id.0))?;
                Ok((Guest { retain, ..guest }, operation))
            })
        })
        .await
    }

    /// Records that the files of a guest that is being destroyed cannot be kept, and are removed. Durable.
    ///
    /// # Errors
    /// [`StoreError::GuestNotFound`].
    pub async fn cancel_retention(&self, name: &GuestName) -> Result<(), StoreError> {
        let name = name.clone();
        self.run("record that files are not kept", move |database| {
            database.write(Durability::Now, |transaction| {
                doom_files_of(transaction, &name)?;
                guests::set(transaction, &name, "retain", &None::<i64>)
            })
        })
        .await
    }

    /// Records that an agent should be created again with its files: takes its name and a slot and begins the
    /// operation, all or nothing. Durable. `id` is one of several destroyed agents of the name; otherwise it is the one that
    /// was destroyed last. `new` makes the guest of what is known about it.
    ///
    /// # Errors
    /// [`StoreError::RetainedNotFound`], [`StoreError::UndeletedNameTaken`], [`StoreError::NameOfPreview`] and
    /// [`StoreError::NoSlotLeft`].
    pub async fn begin_undelete(
        &self,
        id: RetainedId,
        new: NewGuest,
        actor: &str,
    ) -> Result<(Guest, Operation), StoreError> {
        let actor = actor.to_owned();
        self.run("record a guest", move |database| {
            let range = database.range;
            database.require_space()?;
            database.write(Durability::Now, |transaction| {
                let former = find(transaction, id)?
                    .filter(|(files, guest)| guest.is_none() && !files.record.removing);
                let Some((former, _)) = former else {
                    return Err(StoreError::FilesGone { id }.into());
                };
                if guests::find(transaction, &new.name)?.is_some() {
                    return Err(StoreError::UndeletedNameTaken {
                        name: new.name,
                        former: former.record.name,
                    }
                    .into());
                }
                previews::refuse_name(transaction, &new.name)?;
                let slot = slots::take(transaction, range)?;
                let guest = guests::insert(transaction, new, slot, Some(&FileWork::Adopt(id)))?;
                transaction
                    .prepare_cached("UPDATE retained SET guest = ?2 WHERE id = ?1")?
                    .execute((id.0, Word(&guest.name)))?;
                let verb = Verb::Undelete;
                let operation = operations::begin(transaction, Some(&guest.name), verb, &actor)?;
                Ok((guest, operation))
            })
        })
        .await
    }

    /// Records that a guest has taken over the files of a destroyed one: they are its own now. Durable.
    ///
    /// # Errors
    /// [`StoreError::GuestNotFound`].
    pub async fn finish_file_takeover(&self, name: &GuestName) -> Result<(), StoreError> {
        let name = name.clone();
        self.run("record what was done with files", move |database| {
            database.write(Durability::Now, |transaction| {
                guests::set(transaction, &name, "file_work", &None::<String>)?;
                transaction
                    .prepare_cached("DELETE FROM retained WHERE guest = ?1")?
                    .execute([Word(&name)])?;
                Ok(())
            })
        })
        .await
    }

    /// Begins the operation that removes the files of a destroyed agent. Nothing when there are none, an agent has
    /// them again, or an operation removes them already. Durable. Never refused for lack of space.
    ///
    /// # Errors
    /// Only those of the disk and SQLite.
    pub async fn begin_purge(
        &self,
        id: RetainedId,
        actor: &str,
    ) -> Result<Option<(RetainedFiles, Operation)>, StoreError> {
        let actor = actor.to_owned();
        self.run("record an operation", move |database| {
            database.write(Durability::Now, |transaction| {
                let free = find(transaction, id)?
                    .filter(|(files, guest)| guest.is_none() && files.operation.is_none());
                let Some((mut files, _)) = free else {
                    return Ok(None);
                };
                let operation = operations::begin(transaction, None, Verb::Purge, &actor)?;
                transaction
                    .prepare_cached("UPDATE retained SET doomed = 1, operation = ?2 WHERE id = ?1")?
                    .execute((id.0, operation.id.0))?;
                files.record.removing = true;
                files.operation = Some(operation.id);
                Ok(Some((files, operation)))
            })
        })
        .await
    }

    /// Records how a purge ended: the files are gone, or are to be removed by another operation. Durable.
    ///
    /// # Errors
    /// Only those of the disk and SQLite.
    pub async fn end_purge(
        &self,
        operation: OperationId,
        failure: Option<&innkeeper_model::Failure>,
    ) -> Result<(), StoreError> {
        let failure = failure.cloned();
        self.run("record how an operation ended", move |database| {
            database.write(Durability::Now, |transaction| {
                let sql = match &failure {
                    None => "DELETE FROM retained WHERE operation = ?1",
                    Some(_) => "UPDATE retained SET operation = NULL WHERE operation = ?1",
                };
                transaction.prepare_cached(sql)?.execute([operation.0])?;
                operations::end(transaction, operation, failure.as_ref())
            })
        })
        .await
    }

    /// Records what the files of a destroyed agent take of the disk.
    ///
    /// # Errors
    /// Only those of the disk and SQLite.
    pub async fn set_retained_bytes(&self, id: RetainedId, bytes: u64) -> Result<(), StoreError> {
        self.run("record what files take", move |database| {
            database.write(Durability::Soon, |transaction| {
                let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
                transaction
                    .prepare_cached("UPDATE retained SET bytes = ?2 WHERE id = ?1")?
                    .execute((id.0, bytes))?;
                Ok(())
            })
        })
        .await
    }

    /// The files of destroyed agents that no guest has, the oldest first.
    ///
    /// # Errors
    /// Only those of the disk and SQLite.
    pub async fn retained(&self) -> Result<Vec<RetainedFiles>, StoreError> {
        self.run("read the retained files", |database| {
            let files = database
                .connection
                .prepare_cached("SELECT * FROM retained WHERE guest IS NULL ORDER BY id")?
                .query_map((), read)?
                .collect::<Result<_, _>>()?;
            Ok(files)
        })
        .await
    }

    /// The numbers of all files that are kept, whether or not a guest has them.
    ///
    /// # Errors
    /// Only those of the disk and SQLite.
    pub async fn retained_ids(&self) -> Result<Vec<RetainedId>, StoreError> {
        self.run("read the retained files", |database| {
            let ids = database
                .connection
                .prepare_cached("SELECT id FROM retained")?
                .query_map((), |row| row.get(0).map(RetainedId))?
                .collect::<Result<_, _>>()?;
            Ok(ids)
        })
        .await
    }
}

/// Lets the files of a guest whose record is about to be deleted belong to nobody. They are kept from now on.
pub(crate) fn let_go(
    transaction: &Transaction<'_>,
    name: &GuestName,
    now: RunningTime,
) -> Result<(), QueryError> {
    transaction
        .prepare_cached(
            "UPDATE retained SET guest = NULL, destroyed_at = ?2, destroyed_running = ?3 WHERE guest = ?1",
        )?
        .execute((Word(name), Time::now(), now))?;
    Ok(())
}

/// Decides under which number the files of a guest that is destroyed are kept.
fn keep_files_of(
    transaction: &Transaction<'_>,
    guest: &Guest,
    now: RunningTime,
) -> Result<Option<RetainedId>, QueryError> {
    match (guest.kind, &guest.file_work) {
        // A copy that is not complete is nothing that anybody had.
        (GuestKind::Preview, _) | (_, Some(FileWork::CopyOf(_))) => Ok(None),
        // Files that were not taken over yet stay what they were.
        (_, Some(FileWork::Adopt(id))) => Ok(Some(*id)),
        _ => Ok(Some(insert(transaction, guest, now)?)),
    }
}

fn doom_files_of(transaction: &Transaction<'_>, name: &GuestName) -> Result<(), QueryError> {
    transaction
        .prepare_cached("UPDATE retained SET doomed = 1 WHERE guest = ?1")?
        .execute([Word(name)])?;
    Ok(())
}

fn insert(
    connection: &Connection,
    guest: &Guest,
    now: RunningTime,
) -> Result<RetainedId, QueryError> {
    let id = connection
        .prepare_cached(
            "INSERT INTO retained
                 (name, source, closure, limits, created_at, destroyed_at, destroyed_running, guest)
             VALUES (:name, :source, :closure, :limits, :created_at, :now, :running, :name)
             RETURNING id",
        )?
        .query_row(
            named_params! {
                ":name": Word(&guest.name),
                ":source": Json(&guest.source),
                ":closure": guest.closure.as_ref().map(Word),
                ":limits": Json(&guest.limits),
                ":created_at": Time(guest.created_at),
                ":now": Time::now(),
                ":running": now,
            },
            |row| row.get(0),
        )?;
    Ok(RetainedId(id))
}

/// The files with this number, and the guest that has them.
fn find(
    connection: &Connection,
    id: RetainedId,
) -> Result<Option<(RetainedFiles, Option<GuestName>)>, QueryError> {
    let found = connection
        .prepare_cached("SELECT * FROM retained WHERE id = ?1")?
        .query_row([id.0], |row| {
            let guest: Option<Word<_>> = row.get("guest")?;
            Ok((read(row)?, guest.map(|word| word.0)))
        })
        .optional()?;
    Ok(found)
}

fn read(row: &Row<'_>) -> rusqlite::Result<RetainedFiles> {
    let closure: Option<Word<_>> = row.get("closure")?;
    let bytes: Option<i64> = row.get("bytes")?;
    let operation: Option<i64> = row.get("operation")?;
    Ok(RetainedFiles {
        record: Retained {
            id: RetainedId(row.get("id")?),
            name: row.get::<_, Word<_>>("name")?.0,
            source: row.get::<_, Json<_>>("source")?.0,
            closure: closure.map(|word| word.0),
            limits: row.get::<_, Json<_>>("limits")?.0,
            created_at: row.get::<_, Time>("created_at")?.0,
            destroyed_at: row.get::<_, Time>("destroyed_at")?.0,
            bytes: bytes.and_then(|bytes| u64::try_from(bytes).ok()),
            removing: row.get("doomed")?,
        },
        since: row.get("destroyed_running")?,
        operation: operation.map(OperationId),
    })
}
