//! Restore after a start of the daemon.

use std::collections::HashMap;

use innkeeper_model::{
    Code, DesiredState, EventKind, Explain, Failure, Guest, GuestName, IdlePolicy, Operation,
    UnitPhase, Verb,
};
use tracing::{info, warn};

use crate::EngineError;
use crate::engine::Engine;
use crate::journal::Subject;
use crate::staging::Staging;

impl Engine {
    /// Lets a guest start at once that would wait for its turn after a reboot of the host.
    pub fn hasten(&self, name: &GuestName) {
        self.inner.staged_starts.hasten(name);
    }

    /// Returns turns for work that follows the starts of guests after a reboot of the host, as many at a time as theirs.
    #[must_use]
    pub fn staging(&self) -> Staging {
        Staging::new(self.inner.config.concurrent_starts / 2)
    }

    /// Sorts guests by the order of their starts after a reboot of the host: those that never rest first.
    fn sort_for_restore(&self, guests: &mut [Guest]) {
        let rest = &self.inner.config.rest;
        guests.sort_by_key(|guest| rest.policy(guest) != IdlePolicy::AlwaysOn);
    }

    /// Has the guests that should run take turns if they start, in this order. A guest does not wait whose start a user
    /// requested before.
    fn stage(&self, guests: &[Guest], unfinished: &HashMap<GuestName, Operation>) {
        let is_requested = |guest: &Guest| {
            (unfinished.get(&guest.name)).is_some_and(|operation| operation.verb != Verb::Restore)
        };
        let staged = (guests.iter())
            .filter(|guest| guest.should_have_processes() && guest.rests().is_none())
            .filter(|guest| !is_requested(guest))
            .map(|guest| guest.name.clone());
        self.inner.staged_starts.stage(staged);
    }

    /// Resumes after a restart, a reboot or a crash: the firewall first, then unfinished operations, then every other
    /// guest. Returns when all of this is in flight.
    ///
    /// # Errors
    /// When the store cannot be read, or the firewall cannot be applied: guests must not run without it.
    pub async fn restore(&self) -> Result<(), EngineError> {
        // Before the firewall replaces the former daemon's table. Without one, all paused guests may have been reached.
        let unreached = self.inner.host.packets.unreached().await;
        self.inner.ensure_firewall().await?;
        // Those of an earlier daemon have its settings: they are removed, and not taken meanwhile.
        self.inner.store.retire_seats().await?;
        let mut unfinished = HashMap::new();
        for operation in self.inner.store.running_operations().await? {
            match operation.guest.clone() {
                Some(guest) => drop(unfinished.insert(guest, operation)),
                None if self.resume_purge(&operation).await? => {}
                // The daemon continues it.
                None if operation.verb == Verb::Prefetch => {}
                None => self.fail_interrupted(&operation).await?,
            }
        }
        self.spawn_retained_maintenance(true);
        self.resume_keepalives().await?;
        let mut guests = self.inner.store.guests().await?;
        self.sort_for_restore(&mut guests);
        info!(
            guests = guests.len(),
            unfinished = unfinished.len(),
            "restoring"
        );
        self.resume_parking(&guests, &unfinished).await;
        self.resume_packets(&guests, &unreached, &unfinished).await;
        self.stage(&guests, &unfinished);
        for guest in guests {
            let Some(operation) = unfinished.remove(&guest.name) else {
                self.spawn_restore(guest.name);
                continue;
            };
            let rollback = self.inner.store.rollback_of(operation.id).await?;
            self.inner.in_flight.lock().insert(operation.id);
            match rollback {
                None => self.spawn_drive(guest.name, Some(operation)),
                Some(failure) => self.spawn_rollback(guest.name, operation, failure),
            }
        }
        for orphaned in unfinished.into_values() {
            self.fail_interrupted(&orphaned).await?;
        }
        Ok(())
    }

    /// Drives a guest that had no daemon for a while.
    fn spawn_restore(&self, name: GuestName) {
        let engine = self.clone();
        self.spawn(async move {
            if let Err(error) = engine.record_missed_power_off(&name).await {
                warn!(guest = %name, code = %error.code(), "{}", innkeeper_model::chain(&error));
            }
            engine.spawn_drive(name, None);
        });
    }

    /// Records the power-off of a guest that happened while no daemon ran.
    async fn record_missed_power_off(&self, name: &GuestName) -> Result<(), EngineError> {
        let _guest = self.inner.guest_locks.lock(name).await;
        if let Some((guest, 0)) = self.unrequested_exit(name).await?
            && guest.rests().is_none()
        {
            self.record_exit(name, 0);
            self.inner
                .store
                .set_desired_state(name, DesiredState::Stopped)
                .await?;
        }
        Ok(())
    }

    pub(crate) fn record_exit(&self, name: &GuestName, status: i32) {
        self.inner
            .journal
            .record(&Subject::guest(name), EventKind::Exited { status });
    }

    /// Returns a guest and its exit status if it should have processes but has exited.
    pub(crate) async fn unrequested_exit(
        &self,
        name: &GuestName,
    ) -> Result<Option<(Guest, i32)>, EngineError> {
        let guest = self.inner.store.guest(name).await?;
        let unit = self.inner.host.units.phase(name).await?;
        Ok(match (guest, unit.map(|unit| unit.phase)) {
            (Some(guest), Some(UnitPhase::Exited(status))) if guest.should_have_processes() => {
                Some((guest, status))
            }
            _ => None,
        })
    }

    /// Ends an operation that cannot be resumed.
    async fn fail_interrupted(&self, operation: &Operation) -> Result<(), EngineError> {
        let failure = Failure::new(
            Code::GuestBusy,
            format!(
                "the {} was interrupted by a restart of innkeeperd",
                operation.verb
            ),
        );
        let failure = match operation.verb {
            Verb::Build => failure.with_remedy("Run it again; Nix keeps what it has built so far."),
            Verb::Backup => {
                failure.with_remedy("Run it again. The former backup set is still complete.")
            }
            Verb::RestoreBackup => failure.with_remedy("Run it again."),
            _ => failure,
        };
        self.inner
            .store
            .finish_operation(operation.id, Some(&failure))
            .await?;
        let subject = Subject {
            operation: Some(operation.id),
            guest: operation.guest.clone(),
        };
        self.inner
            .journal
            .record(&subject, EventKind::Failed { failure });
        Ok(())
    }
}
