//! What should be true of each guest.
//!
//! Methods that record an intent are durable when they return. Methods that record a fact learnt on the
//! way are durable soon after, since a reconcile can learn it again.

use innkeeper_model::{
    ClosureSource, Code, DesiredState, Failure, FileWork, Guest, GuestKind, GuestName, Limits,
    Operation, Origin, RetainedId, Slot, StorePath, Verb,
};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, Transaction, named_params};

use crate::codec::{self, Json, Time, Word};
use crate::connection::Store;
use crate::database::Durability;
use crate::error::{QueryError, StoreError};
use crate::{operations, previews, retained, slots, snapshots};

/// A guest to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewGuest {
    /// Its name.
    pub name: GuestName,
    /// What it is for.
    pub kind: GuestKind,
    /// Where its closure comes from.
    pub source: ClosureSource,
    /// The closure, if it is known already.
    pub closure: Option<StorePath>,
    /// What it may use.
    pub limits: Limits,
    /// Whose files it begins with, if it does not begin with none.
    pub origin: Option<Origin>,
}

impl Store {
    /// Records that a guest should run: takes its name and a slot and begins the operation, all or
    /// nothing. Durable.
    ///
    /// # Errors
    /// [`StoreError::GuestExists`] and [`StoreError::NoSlotLeft`]; for an agent also
    /// [`StoreError::NameOfPreview`], since a preview has its name before it has its guest. For a copy also what
    /// keeps it from being made: [`StoreError::GuestNotFound`], [`StoreError::GuestBusy`] and
    /// [`StoreError::GuestLeaving`] about its origin, and [`StoreError::SnapshotNotFound`].
    pub async fn create_guest(
        &self,
        new: NewGuest,
        actor: &str,
    ) -> Result<(Guest, Operation), StoreError> {
        let actor = actor.to_owned();
        self.run("record a guest", move |database| {
            let range = database.range;
            database.require_space()?;
            database.write(Durability::Now, |transaction| {
                if let Some(Guest { name, desired, .. }) = find(transaction, &new.name)? {
                    return Err(StoreError::GuestExists { name, desired }.into());
                }
                if new.kind == GuestKind::Agent {
                    previews::refuse_name(transaction, &new.name)?;
                }
                let verb = match &new.origin {
                    None => Verb::Create,
                    Some(origin) => {
                        idle(transaction, &origin.guest)?;
                        if let Some(label) = &origin.snapshot {
                            snapshots::require(transaction, &origin.guest, label)?;
                        }
                        Verb::Fork
                    }
                };
                let slot = slots::take(transaction, range)?;
                let file_work = new.origin.clone().map(FileWork::CopyOf);
                let guest = insert(transaction, new, slot, file_work.as_ref())?;
                let operation = operations::begin(transaction, Some(&guest.name), verb, &actor)?;
                Ok((guest, operation))
            })
        })
        .await
    }

    /// Records what should be true of a guest from now on, clears its fault and begins the operation that
    /// makes it so, all or nothing. Durable.
    ///
    /// [`Verb::Destroy`] is never refused, so that every guest can be removed whatever state it is in: it
    /// ends the operation that is running with [`Code::GuestBusy`] and takes its place. If what is running
    /// is itself a destroy, that one is returned and none is begun.
    ///
    /// # Errors
    /// [`StoreError::GuestNotFound`]. For other verbs also [`StoreError::GuestBusy`] while an operation on
    /// the guest has not ended, and [`StoreError::GuestLeaving`] when it is to be removed.
    pub async fn begin_change(
        &self,
        name: &GuestName,
        desired: DesiredState,
        verb: Verb,
        actor: &str,
    ) -> Result<(Guest, Operation), StoreError> {
        let (name, actor) = (name.clone(), actor.to_owned());
        self.run("record what a guest should be", move |database| {
            database.write(Durability::Now, |transaction| {
                change(transaction, &name, desired, verb, &actor)
            })
        })
        .await
    }

    /// Changes what should be true of a guest without an operation: a create that is rolled back, a guest
    /// that switched itself off. Durable. A guest that is to be removed stays so, since an older finding
    /// must not bring it back.
    ///
    /// # Errors
    /// [`StoreError::GuestNotFound`].
    pub async fn set_desired_state(
        &self,
        name: &GuestName,
        desired: DesiredState,
    ) -> Result<(), StoreError> {
        let name = name.clone();
        self.run("record what a guest should be", move |database| {
            database.write(Durability::Now, |transaction| {
                let guest = there(transaction, &name)?;
                if guest.desired != DesiredState::Absent {
                    set(transaction, &name, "want", &Word(desired))?;
                }
                Ok(())
            })
        })
        .await
    }

    /// Records the closure that a guest boots from.
    ///
    /// # Errors
    /// [`StoreError::GuestNotFound`].
    pub async fn set_closure(
        &self,
        name: &GuestName,
        closure: &StorePath,
    ) -> Result<(), StoreError> {
        self.learn(name, "closure", Word(closure.clone())).await
    }

    /// Records the public half of a guest's SSH host key, in OpenSSH format.
    ///
    /// # Errors
    /// [`StoreError::GuestNotFound`].
    pub async fn set_ssh_host_key(&self, name: &GuestName, key: &str) -> Result<(), StoreError> {
        self.learn(name, "ssh_host_key", key.to_owned()).await
    }

    /// Records why a guest is not as wanted, or that nothing stands in the way any more.
    ///
    /// # Errors
    /// [`StoreError::GuestNotFound`].
    pub async fn set_fault(
        &self,
        name: &GuestName,
        fault: Option<&Failure>,
    ) -> Result<(), StoreError> {
        self.learn(name, "fault", fault.cloned().map(Json)).await
    }

    async fn learn(
        &self,
        name: &GuestName,
        column: &'static str,
        value: impl ToSql + Send + 'static,
    ) -> Result<(), StoreError> {
        let name = name.clone();
        self.run("record what was learnt of a guest", move |database| {
            database.write(Durability::Soon, |transaction| {
                set(transaction, &name, column, &value)
            })
        })
        .await
    }

    /// Deletes a guest's record, frees its slot and ends its operation, all or nothing. Durable. To be
    /// called when every resource of the guest has been seen gone. A destroy ends as done; anything else
    /// ends with `failure`, or with one that says that the guest was removed. The absence of the guest is
    /// success.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn delete_guest(
        &self,
        name: &GuestName,
        failure: Option<&Failure>,
    ) -> Result<(), StoreError> {
        let name = name.clone();
        let failure = failure.cloned().unwrap_or_else(|| {
            Failure::new(
                Code::GuestNotFound,
                format!("guest '{name}' was removed before the operation ended"),
            )
        });
        self.run("delete a guest's record", move |database| {
            let now = database.clock.now();
            database.write(Durability::Now, |transaction| {
                retained::let_go(transaction, &name, now)?;
                let slot = transaction
                    .prepare_cached("DELETE FROM guests WHERE name = ?1 RETURNING slot")?
                    .query_row([Word(&name)], |row| row.get(0))
                    .optional()?;
                if let Some(slot) = slot {
                    slots::free(transaction, slot)?;
                }
                if let Some(running) = operations::running_on(transaction, &name)? {
                    let failure = (running.verb != Verb::Destroy).then_some(&failure);
                    operations::end(transaction, running.id, failure)?;
                }
                Ok(())
            })
        })
        .await
    }

    /// The record of a guest.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn guest(&self, name: &GuestName) -> Result<Option<Guest>, StoreError> {
        let name = name.clone();
        self.run("read a guest's record", move |database| {
            find(&database.connection, &name)
        })
        .await
    }

    /// The records of all guests, by name.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn guests(&self) -> Result<Vec<Guest>, StoreError> {
        self.run("read the guests' records", |database| {
            let guests = database
                .connection
                .prepare_cached("SELECT * FROM guests ORDER BY name")?
                .query_map((), read)?
                .collect::<Result<_, _>>()?;
            Ok(guests)
        })
        .await
    }
}

/// [`Store::begin_change`] inside a transaction.
pub(crate) fn change(
    transaction: &Transaction<'_>,
    name: &GuestName,
    desired: DesiredState,
    verb: Verb,
    actor: &str,
) -> Result<(Guest, Operation), QueryError> {
    let guest = match verb {
        Verb::Destroy => there(transaction, name)?,
        _ => idle(transaction, name)?,
    };
    let operation = match operations::running_on(transaction, name)? {
        Some(running) if running.verb == Verb::Destroy => running,
        Some(running) => operations::supersede(transaction, &running, verb, actor)?,
        None => operations::begin(transaction, Some(name), verb, actor)?,
    };
    set(transaction, name, "want", &Word(desired))?;
    set(transaction, name, "fault", &None::<String>)?;
    let guest = Guest {
        desired,
        fault: None,
        ..guest
    };
    Ok((guest, operation))
}

pub(crate) fn find(connection: &Connection, name: &GuestName) -> Result<Option<Guest>, QueryError> {
    let guest = connection
        .prepare_cached("SELECT * FROM guests WHERE name = ?1")?
        .query_row([Word(name)], read)
        .optional()?;
    Ok(guest)
}

/// The record of a guest that must be there.
pub(crate) fn there(connection: &Connection, name: &GuestName) -> Result<Guest, QueryError> {
    let guest = find(connection, name)?;
    Ok(guest.ok_or_else(|| StoreError::GuestNotFound { name: name.clone() })?)
}

/// The record of a guest that no operation works on and that is to stay.
pub(crate) fn idle(connection: &Connection, name: &GuestName) -> Result<Guest, QueryError> {
    let found = there(connection, name)?;
    let guest = name.clone();
    if let Some(running) = operations::running_on(connection, name)? {
        let (operation, verb) = (running.id, running.verb);
        return Err(StoreError::GuestBusy {
            guest,
            operation,
            verb,
        }
        .into());
    }
    match found.desired {
        DesiredState::Absent => Err(StoreError::GuestLeaving { guest }.into()),
        DesiredState::Running | DesiredState::Stopped => Ok(found),
    }
}

pub(crate) fn insert(
    connection: &Connection,
    new: NewGuest,
    slot: Slot,
    file_work: Option<&FileWork>,
) -> Result<Guest, QueryError> {
    let guest = connection
        .prepare_cached(
            "INSERT INTO guests (name, kind, slot, want, source, closure, limits, file_work, created_at)
             VALUES (:name, :kind, :slot, :want, :source, :closure, :limits, :file_work, :created_at)
             RETURNING *",
        )?
        .query_row(
            named_params! {
                ":name": Word(new.name),
                ":kind": Word(new.kind),
                ":slot": slot.number(),
                ":want": Word(DesiredState::Running),
                ":source": Json(new.source),
                ":closure": new.closure.map(Word),
                ":limits": Json(new.limits),
                ":file_work": file_work.map(Json),
                ":created_at": Time::now(),
            },
            read,
        )?;
    Ok(guest)
}

/// Sets one column. Which one is never a caller's text.
pub(crate) fn set(
    connection: &Connection,
    name: &GuestName,
    column: &'static str,
    value: &dyn ToSql,
) -> Result<(), QueryError> {
    let changed = connection
        .prepare_cached(&format!("UPDATE guests SET {column} = ?2 WHERE name = ?1"))?
        .execute((Word(name), value))?;
    if changed == 0 {
        return Err(StoreError::GuestNotFound { name: name.clone() }.into());
    }
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<Guest> {
    let fault: Option<String> = row.get("fault")?;
    let closure: Option<Word<_>> = row.get("closure")?;
    let file_work: Option<Json<_>> = row.get("file_work")?;
    let retain: Option<i64> = row.get("retain")?;
    Ok(Guest {
        name: row.get::<_, Word<_>>("name")?.0,
        kind: row.get::<_, Word<_>>("kind")?.0,
        slot: Slot::new(row.get("slot")?),
        desired: row.get::<_, Word<_>>("want")?.0,
        source: row.get::<_, Json<_>>("source")?.0,
        closure: closure.map(|word| word.0),
        limits: row.get::<_, Json<_>>("limits")?.0,
        ssh_host_key: row.get("ssh_host_key")?,
        fault: fault.as_deref().map(codec::failure),
        file_work: file_work.map(|json| json.0),
        retain: retain.map(RetainedId),
        created_at: row.get::<_, Time>("created_at")?.0,
    })
}
