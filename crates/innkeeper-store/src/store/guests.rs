//! Desired state of guests.
//!
//! Methods that record an intent are durable when they return. Methods that record a fact are durable soon after, since a
//! reconcile can observe it again.

use innkeeper_model::{
    Code, DesiredState, Failure, FileWork, Guest, GuestKind, GuestName, Level, Operation,
    OwnSystem, OwnSystemState, Slot, SlotRange, StorePath, Verb,
};
use rusqlite::{Connection, ToSql, Transaction};

use super::Store;
use crate::codec::{Json, Text};
use crate::database::Durability;
use crate::error::{QueryError, StoreError};
use crate::sql::guests::{self, NewGuest};
use crate::sql::{held, operations, previews, retained, seats, slots, snapshots};

impl Store {
    /// Records that a guest should run: takes its name and a slot and begins the operation, all or nothing. Durable.
    ///
    /// # Errors
    /// [`StoreError::GuestExists`], [`StoreError::NoSlotLeft`] and [`StoreError::NoSlotRun`]; for an agent also [`StoreError::NameOfPreview`], since
    /// a preview has its name before its guest exists. For a copy, about its origin: [`StoreError::GuestNotFound`],
    /// [`StoreError::GuestBusy`], [`StoreError::GuestLeaving`] and [`StoreError::SnapshotNotFound`].
    pub async fn create_guest(
        &self,
        new: NewGuest,
        actor: &str,
    ) -> Result<(Guest, Operation), StoreError> {
        let (range, actor) = (self.range, actor.to_owned());
        self.insert("record a guest", move |transaction| {
            refuse_taken(transaction, &new)?;
            let Some(origin) = new.origin.clone() else {
                return insert(transaction, range, new, None, Verb::Create, &actor);
            };
            let own_system = require_idle(transaction, &origin.guest)?.own_system;
            if let Some(label) = &origin.snapshot {
                snapshots::require(transaction, &origin.guest, label)?;
            }
            let work = FileWork::CopyOf(origin);
            let verb = Verb::Fork;
            let (guest, operation) = insert(transaction, range, new, Some(&work), verb, &actor)?;
            // The copied profile names the same system, and what is known about it holds for the copy.
            let own_system = own_system.map(|own| own.copied());
            guests::set(
                transaction,
                &guest.name,
                "own_system",
                &own_system.map(Json),
            )?;
            Ok((guest, operation))
        })
        .await
    }

    /// Records the level of a guest that should run, clears its faults and begins the operation that establishes it, all or
    /// nothing. Durable.
    ///
    /// # Errors
    /// [`StoreError::GuestNotFound`], [`StoreError::GuestBusy`], [`StoreError::GuestLeaving`],
    /// [`StoreError::GuestStopped`], and [`StoreError::GuestAsleep`] for a guest that cannot be paused.
    pub async fn begin_level(
        &self,
        name: &GuestName,
        level: Level,
        verb: Verb,
        actor: &str,
    ) -> Result<(Guest, Operation), StoreError> {
        let (name, actor) = (name.clone(), actor.to_owned());
        let action = "record the level of a guest";
        self.write(action, Durability::Now, move |transaction| {
            let found = require_idle(transaction, &name)?;
            let kind = found.kind;
            if found.desired != DesiredState::Running {
                return Err(StoreError::GuestStopped { guest: name, kind }.into());
            }
            if (found.level, level) == (Level::Asleep, Level::Paused) {
                return Err(StoreError::GuestAsleep { guest: name, kind }.into());
            }
            let operation = operations::begin(transaction, Some(&name), verb, &actor)?;
            guests::set(transaction, &name, "level", &Text(level))?;
            guests::clear(transaction, &name, "fault")?;
            guests::clear(transaction, &name, "wake_failure")?;
            let guest = Guest {
                level,
                fault: None,
                wake_failure: None,
                ..found
            };
            Ok((guest, operation))
        })
        .await
    }

    /// Changes the level of a guest without an operation: a paused guest that lost its processes, or the rollback of a
    /// request. Durable. Has no effect on a guest that should not run.
    ///
    /// # Errors
    /// [`StoreError::GuestNotFound`].
    pub async fn set_level(&self, name: &GuestName, level: Level) -> Result<(), StoreError> {
        let name = name.clone();
        let action = "record the level of a guest";
        self.write(
            action,
            Durability::Now,
            move |transaction| match guests::require(transaction, &name)?.desired {
                DesiredState::Running => guests::set(transaction, &name, "level", &Text(level)),
                DesiredState::Stopped | DesiredState::Absent => Ok(()),
            },
        )
        .await
    }

    /// Puts a guest to sleep again that did not wake, and records the reason, all or nothing. Durable. Has no effect on a
    /// guest that should not run.
    ///
    /// # Errors
    /// [`StoreError::GuestNotFound`].
    pub async fn fail_wake(&self, name: &GuestName, failure: &Failure) -> Result<(), StoreError> {
        let (name, failure) = (name.clone(), failure.clone());
        let action = "record that a guest did not wake";
        self.write(action, Durability::Now, move |transaction| {
            if guests::require(transaction, &name)?.desired == DesiredState::Running {
                guests::set(transaction, &name, "level", &Text(Level::Asleep))?;
                guests::set(transaction, &name, "wake_failure", &Json(failure))?;
            }
            Ok(())
        })
        .await
    }

    /// Records the desired state of a guest, and that it is awake if it should run, clears its faults, lets the start of a stopped
    /// guest try a failed system of its own once more, and begins the operation that establishes it, all or
    /// nothing. Durable.
    ///
    /// [`Verb::Destroy`] is never refused, so that every guest can be removed in whatever state it is: it supersedes the
    /// running operation, which ends with [`Code::GuestBusy`]. If a destroy is running already, that one is returned and
    /// none is begun.
    ///
    /// # Errors
    /// [`StoreError::GuestNotFound`]. For other verbs also [`StoreError::GuestBusy`] while an operation runs on the guest,
    /// and [`StoreError::GuestLeaving`] when it is being destroyed.
    pub async fn begin_change(
        &self,
        name: &GuestName,
        desired: DesiredState,
        verb: Verb,
        actor: &str,
    ) -> Result<(Guest, Operation), StoreError> {
        let (name, actor) = (name.clone(), actor.to_owned());
        let action = "record the desired state of a guest";
        self.write(action, Durability::Now, move |transaction| {
            begin_change(transaction, &name, desired, verb, &actor)
        })
        .await
    }

    /// Changes the desired state of a guest without an operation: a rolled-back create, or a guest that shut itself down.
    /// A guest that should run is awake from then on.
    /// Durable. A guest that is being destroyed stays so: an older finding must not bring it back.
    ///
    /// # Errors
    /// [`StoreError::GuestNotFound`].
    pub async fn set_desired_state(
        &self,
        name: &GuestName,
        desired: DesiredState,
    ) -> Result<(), StoreError> {
        let name = name.clone();
        let action = "record the desired state of a guest";
        self.write(
            action,
            Durability::Now,
            move |transaction| match guests::require(transaction, &name)?.desired {
                DesiredState::Absent => Ok(()),
                DesiredState::Running | DesiredState::Stopped => {
                    guests::set(transaction, &name, "level", &Text(Level::Awake))?;
                    guests::clear(transaction, &name, "wake_failure")?;
                    guests::set(transaction, &name, "want", &Text(desired))
                }
            },
        )
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
        self.set_fact(name, "closure", Text(closure.clone())).await
    }

    /// Records the public half of a guest's SSH host key, in OpenSSH format.
    ///
    /// # Errors
    /// [`StoreError::GuestNotFound`].
    pub async fn set_ssh_host_key(&self, name: &GuestName, key: &str) -> Result<(), StoreError> {
        self.set_fact(name, "ssh_host_key", key.to_owned()).await
    }

    /// Records the obstacle to a guest's desired state; `None` when it is gone.
    ///
    /// # Errors
    /// [`StoreError::GuestNotFound`].
    pub async fn set_fault(
        &self,
        name: &GuestName,
        fault: Option<&Failure>,
    ) -> Result<(), StoreError> {
        self.set_fact(name, "fault", fault.cloned().map(Json)).await
    }

    /// Records the system that a guest has built for itself; `None` when it has none. Durable: a system that did not come up
    /// is not booted again.
    ///
    /// # Errors
    /// [`StoreError::GuestNotFound`].
    pub async fn set_own_system(
        &self,
        name: &GuestName,
        own: Option<&OwnSystem>,
    ) -> Result<(), StoreError> {
        let (name, own) = (name.clone(), own.cloned().map(Json));
        let action = "record a guest's own system";
        self.write(action, Durability::Now, move |transaction| {
            guests::set(transaction, &name, "own_system", &own)
        })
        .await
    }

    async fn set_fact(
        &self,
        name: &GuestName,
        column: &'static str,
        value: impl ToSql + Send + 'static,
    ) -> Result<(), StoreError> {
        let name = name.clone();
        let action = "record a fact about a guest";
        self.write(action, Durability::Soon, move |transaction| {
            guests::set(transaction, &name, column, &value)
        })
        .await
    }

    /// Deletes a guest's record, frees its slot and ends its operation, all or nothing. Durable. Call it when every
    /// resource of the guest is observed to be gone. A destroy succeeds; any other operation ends with `failure` or, if
    /// that is `None`, with [`Code::GuestNotFound`]. The absence of the guest is success.
    ///
    /// # Errors
    /// Only if the database cannot be written.
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
                retained::release(transaction, &name, now)?;
                if let Some((first, count)) = guests::delete(transaction, &name)? {
                    for slot in first.run(count) {
                        slots::free(transaction, slot.number())?;
                    }
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

    /// Returns a guest.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn guest(&self, name: &GuestName) -> Result<Option<Guest>, StoreError> {
        let name = name.clone();
        self.read("read a guest's record", move |connection| {
            guests::find(connection, &name)
        })
        .await
    }

    /// Returns all guests, by name.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn guests(&self) -> Result<Vec<Guest>, StoreError> {
        self.read("read the guests' records", guests::list).await
    }
}

/// Inserts a guest with slots of its own and begins the operation that creates it.
pub(super) fn insert(
    transaction: &Transaction<'_>,
    range: SlotRange,
    new: NewGuest,
    file_work: Option<&FileWork>,
    verb: Verb,
    actor: &str,
) -> Result<(Guest, Operation), QueryError> {
    held::refuse(transaction, &new.name)?;
    let slot = slots::take(transaction, range, new.limits.user_ids.slots())?;
    begin(transaction, slot, new, file_work, verb, actor)
}

/// Fails if a new guest's name is taken.
pub(super) fn refuse_taken(connection: &Connection, new: &NewGuest) -> Result<(), QueryError> {
    if let Some(Guest { name, desired, .. }) = guests::find(connection, &new.name)? {
        return Err(StoreError::GuestExists { name, desired }.into());
    }
    if new.kind == GuestKind::Agent {
        previews::refuse_name(connection, &new.name)?;
    }
    Ok(())
}

/// Fails if a guest that waits at its door has the name.
pub(super) fn refuse_seat(connection: &Connection, name: &GuestName) -> Result<(), QueryError> {
    if !seats::has(connection, name)? {
        return Ok(());
    }
    let (name, desired) = (name.clone(), DesiredState::Running);
    Err(StoreError::GuestExists { name, desired }.into())
}

/// Inserts a guest with a slot that was taken for it, and begins the operation that creates it.
pub(super) fn begin(
    transaction: &Transaction<'_>,
    slot: Slot,
    new: NewGuest,
    file_work: Option<&FileWork>,
    verb: Verb,
    actor: &str,
) -> Result<(Guest, Operation), QueryError> {
    refuse_seat(transaction, &new.name)?;
    let owner = (new.kind == GuestKind::Agent).then_some(actor);
    let guest = guests::insert(transaction, new, slot, file_work, owner)?;
    let operation = operations::begin(transaction, Some(&guest.name), verb, actor)?;
    Ok((guest, operation))
}

/// Implements [`Store::begin_change`] inside a transaction.
pub(super) fn begin_change(
    transaction: &Transaction<'_>,
    name: &GuestName,
    desired: DesiredState,
    verb: Verb,
    actor: &str,
) -> Result<(Guest, Operation), QueryError> {
    let guest = match verb {
        Verb::Destroy => guests::require(transaction, name)?,
        _ => require_idle(transaction, name)?,
    };
    let operation = match operations::running_on(transaction, name)? {
        Some(running) if running.verb == Verb::Destroy => running,
        Some(running) => operations::supersede(transaction, &running, verb, actor)?,
        None => operations::begin(transaction, Some(name), verb, actor)?,
    };
    guests::set(transaction, name, "want", &Text(desired))?;
    guests::set(transaction, name, "level", &Text(Level::Awake))?;
    guests::clear(transaction, name, "fault")?;
    guests::clear(transaction, name, "wake_failure")?;
    let is_started = verb == Verb::Start && guest.desired != DesiredState::Running;
    let own_system = match guest.own_system {
        Some(own) if is_started && own.state == OwnSystemState::Failed => {
            let own = own.with_state(OwnSystemState::Pending, None);
            guests::set(transaction, name, "own_system", &Json(&own))?;
            Some(Box::new(own))
        }
        own => own,
    };
    let guest = Guest {
        desired,
        level: Level::Awake,
        fault: None,
        wake_failure: None,
        own_system,
        ..guest
    };
    Ok((guest, operation))
}

/// Returns a guest, or fails if an operation runs on it or it is being destroyed.
pub(super) fn require_idle(connection: &Connection, name: &GuestName) -> Result<Guest, QueryError> {
    let found = guests::require(connection, name)?;
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
