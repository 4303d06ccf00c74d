//! Changes of agents' closures and limits.
//!
//! The intent is the guest's [`ClosureChange`]. Each phase is recorded durably before its work begins, so that a crash
//! neither skips a phase nor loses the former closure.

use innkeeper_model::{
    BootSpec, ChangeOutcome, ClosureChange, ClosureSource, Cpus, Guest, GuestName, LastChange,
    MemorySize, Operation, OwnSystemFate, OwnSystemState, StorePath, Verb,
};

use super::Store;
use super::guests::require_idle;
use crate::codec::{Json, Text, Time};
use crate::database::Durability;
use crate::error::StoreError;
use crate::sql::{guests, operations};

/// The requested closure and limits of an agent. `None` keeps the agent's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestedChange {
    /// The source of the closure, and the closure if it is known already.
    pub source: Option<(ClosureSource, Option<StorePath>)>,
    /// The memory limit.
    pub memory: Option<MemorySize>,
    /// The CPU limit.
    pub cpus: Option<Cpus>,
    /// The limit of processes and threads.
    pub tasks: Option<u32>,
    /// True to record that the host's configuration declares the agent.
    pub declared: bool,
    /// True to restart the guest in any case.
    pub restart: bool,
}

impl Store {
    /// Records that a guest's closure or limits are to change, clears its fault and begins the operation, all or nothing.
    /// Replaces a change that could not be rolled back. Durable.
    ///
    /// # Errors
    /// [`StoreError::GuestNotFound`], [`StoreError::GuestBusy`], [`StoreError::GuestLeaving`] and
    /// [`StoreError::FilesBusy`].
    pub async fn begin_set(
        &self,
        name: &GuestName,
        requested: RequestedChange,
        actor: &str,
    ) -> Result<(Guest, Operation), StoreError> {
        let (name, actor) = (name.clone(), actor.to_owned());
        let action = "record a change of a guest's closure";
        self.write(action, Durability::Now, move |transaction| {
            let guest = require_idle(transaction, &name)?;
            if let Some(work) = guest.file_work {
                return Err(StoreError::FilesBusy { guest: name, work }.into());
            }
            let operation = operations::begin(transaction, Some(&name), Verb::Set, &actor)?;
            let restart = requested.restart;
            let declared = guest.declared || requested.declared;
            let own_system = match (&requested.source, requested.declared) {
                (None, _) => OwnSystemFate::Kept,
                // Repeated at each switch of the host: only another closure is a wish.
                (Some(_), true) => OwnSystemFate::ReplacedByOther,
                (Some(_), false) => OwnSystemFate::Replaced,
            };
            let requested = merged(&guest, requested);
            let change = ClosureChange {
                own_system,
                ..ClosureChange::new(operation.id, requested, restart)
            };
            guests::set(transaction, &name, "closure_change", &Json(&change))?;
            guests::set(transaction, &name, "declared", &declared)?;
            guests::clear(transaction, &name, "fault")?;
            // That of a restored guest may have the number of this operation.
            guests::clear(transaction, &name, "last_change")?;
            let guest = Guest {
                fault: None,
                last_change: None,
                declared,
                change: Some(change),
                ..guest
            };
            Ok((guest, operation))
        })
        .await
    }

    /// Records the progress of a change. Durable.
    ///
    /// # Errors
    /// [`StoreError::GuestNotFound`].
    pub async fn record_change(
        &self,
        name: &GuestName,
        change: &ClosureChange,
    ) -> Result<(), StoreError> {
        let (name, change) = (name.clone(), change.clone());
        let action = "record the progress of a change";
        self.write(action, Durability::Now, move |transaction| {
            guests::set(transaction, &name, "closure_change", &Json(&change))
        })
        .await
    }

    /// Exchanges the closure and the limits of a guest with those of the change, and records the change, all or nothing.
    /// If the change replaces a system of the guest's own, it does so from here on, and no longer once the change has a
    /// failure. Durable.
    ///
    /// # Errors
    /// [`StoreError::GuestNotFound`].
    pub async fn exchange_boot(
        &self,
        name: &GuestName,
        change: &ClosureChange,
    ) -> Result<(), StoreError> {
        let (name, mut change) = (name.clone(), change.clone());
        let action = "record a guest's closure and limits";
        self.write(action, Durability::Now, move |transaction| {
            let guest = guests::require(transaction, &name)?;
            let present = BootSpec {
                source: guest.source,
                closure: guest.closure,
                limits: guest.limits,
            };
            let next = std::mem::replace(&mut change.other, present);
            guests::set(transaction, &name, "source", &Json(&next.source))?;
            guests::set(transaction, &name, "closure", &next.closure.map(Text))?;
            guests::set(transaction, &name, "limits", &Json(&next.limits))?;
            let is_replaced = change.own_system == OwnSystemFate::Replaced;
            if let Some(own) = guest.own_system.filter(|_| is_replaced) {
                let state = match change.failure {
                    None => OwnSystemState::Replaced,
                    Some(_) => OwnSystemState::Pending,
                };
                let own = own.with_state(state, None);
                guests::set(transaction, &name, "own_system", &Json(&own))?;
            }
            guests::set(transaction, &name, "closure_change", &Json(&change))
        })
        .await
    }

    /// Records the end of a guest's change and its result. Durable. Without a change, has no effect.
    ///
    /// # Errors
    /// [`StoreError::GuestNotFound`].
    pub async fn end_change(&self, name: &GuestName) -> Result<(), StoreError> {
        let name = name.clone();
        let action = "record the end of a change";
        self.write(action, Durability::Now, move |transaction| {
            let guest = guests::require(transaction, &name)?;
            let Some(change) = guest.change else {
                return Ok(());
            };
            let is_requested = change.failure.is_none();
            let last = LastChange {
                operation: change.operation,
                closure: if is_requested {
                    guest.closure
                } else {
                    change.other.closure
                },
                outcome: match change.failure {
                    Some(_) if change.outcome != ChangeOutcome::Unchanged => {
                        ChangeOutcome::RolledBack
                    }
                    _ => change.outcome,
                },
                failure: change.failure,
                at: Time::now().0,
            };
            guests::set(transaction, &name, "last_change", &Json(&last))?;
            guests::clear(transaction, &name, "closure_change")
        })
        .await
    }
}

fn merged(guest: &Guest, requested: RequestedChange) -> BootSpec {
    let (source, closure) = requested
        .source
        .unwrap_or_else(|| (guest.source.clone(), guest.closure.clone()));
    let mut limits = guest.limits;
    limits.memory = requested.memory.unwrap_or(limits.memory);
    limits.cpus = requested.cpus.unwrap_or(limits.cpus);
    limits.tasks = requested.tasks.unwrap_or(limits.tasks);
    BootSpec {
        source,
        closure,
        limits,
    }
}
