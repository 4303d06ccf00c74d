//! What the engine does of its own accord: after a start, when a guest ends, and from time to time.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use innkeeper_model::{
    Code, DesiredState, EventKind, Explain, Failure, Guest, GuestName, Operation, UnitPhase, Verb,
};
use tokio::sync::broadcast::error::RecvError;
use tracing::{info, warn};

use crate::EngineError;
use crate::engine::{Engine, Inner};
use crate::journal::About;
use crate::oom;

impl Engine {
    /// Takes up where the last daemon left off: firewall first, then every unfinished operation, and every
    /// guest that is not as wanted. This is how guests come back after a reboot, and how a crash is
    /// repaired. Returns when all of it is under way.
    ///
    /// # Errors
    /// When the store cannot be read, or the firewall cannot be asserted: guests must not run without it.
    pub async fn restore(&self) -> Result<(), EngineError> {
        self.inner.ensure_firewall().await?;
        let mut unfinished = HashMap::new();
        for operation in self.inner.store.running_operations().await? {
            match operation.guest.clone() {
                Some(guest) => drop(unfinished.insert(guest, operation)),
                None if self.resume_purge(&operation).await? => {}
                None => self.give_up(&operation).await?,
            }
        }
        self.spawn_look_after_retained();
        let guests = self.inner.store.guests().await?;
        info!(
            guests = guests.len(),
            unfinished = unfinished.len(),
            "restoring"
        );
        for guest in guests {
            let Some(operation) = unfinished.remove(&guest.name) else {
                self.spawn_restore(guest.name);
                continue;
            };
            self.inner.driven.begin(operation.id);
            self.spawn_drive(guest.name, Some(operation));
        }
        for orphaned in unfinished.into_values() {
            self.give_up(&orphaned).await?;
        }
        Ok(())
    }

    /// Watches guests end and looks after everything every `interval`, until the engine stops.
    pub async fn watch(&self, interval: Duration) {
        let mut endings = self.inner.host.units.endings();
        let mut timer = tokio::time::interval(interval);
        timer.reset();
        let mut oom_timer = tokio::time::interval(oom::INTERVAL);
        let firewall = &self.inner.host.firewall;
        let facts = &self.inner.host.facts;
        let mut changed = pin!(facts.changed());
        // It looks at what it has heard, so it must not be dropped for other news.
        let mut disturbed = pin!(firewall.disturbed());
        loop {
            tokio::select! {
                () = self.inner.stopping.cancelled() => return,
                ended = endings.recv() => match ended {
                    Ok(name) => self.spawn_ended(name),
                    Err(RecvError::Lagged(_)) => self.look_after_all().await,
                    Err(RecvError::Closed) => return,
                },
                () = &mut disturbed => {
                    warn!("somebody removed the firewall's table; it is written again");
                    self.look_after_firewall().await;
                    disturbed.set(firewall.disturbed());
                }
                () = &mut changed => {
                    self.follow_host().await;
                    changed.set(facts.changed());
                }
                _ = timer.tick() => self.look_after_all().await,
                _ = oom_timer.tick() => self.look_for_oom_kills().await,
            }
        }
    }

    /// Tries again to make a guest as wanted, after a pause that grows with each failure.
    pub(crate) fn try_again_later(&self, name: &GuestName) {
        let wait = self.inner.backoff.failed(name);
        let (engine, name) = (self.clone(), name.clone());
        self.spawn(async move {
            tokio::select! {
                () = engine.inner.stopping.cancelled() => {}
                () = tokio::time::sleep(wait) => engine.spawn_drive(name, None),
            }
        });
    }

    async fn look_after_firewall(&self) {
        if let Err(error) = self.inner.ensure_firewall().await {
            warn!(code = %error.code(), "no guest starts meanwhile: {}", innkeeper_model::chain(&error));
        }
    }

    async fn look_after_all(&self) {
        self.look_after_firewall().await;
        self.spawn_look_after_retained();
        match self.inner.store.guests().await {
            // A guest with a fault has its own appointment.
            Ok(guests) => guests
                .into_iter()
                .filter(|guest| guest.fault.is_none())
                .for_each(|guest| {
                    self.spawn_follow_host(guest.name.clone());
                    self.spawn_drive(guest.name, None);
                }),
            Err(error) => warn!(code = %error.code(), "{}", innkeeper_model::chain(&error)),
        }
    }

    /// Updates the firewall, then all guests, after facts of the host have changed.
    async fn follow_host(&self) {
        self.look_after_firewall().await;
        match self.inner.store.guests().await {
            Ok(guests) => guests
                .into_iter()
                .for_each(|guest| self.spawn_follow_host(guest.name)),
            Err(error) => warn!(code = %error.code(), "{}", innkeeper_model::chain(&error)),
        }
    }

    /// Updates what a running guest has from the host. A failure is repaired at the next round.
    fn spawn_follow_host(&self, name: GuestName) {
        let engine = self.clone();
        self.spawn(async move {
            let _guest = engine.inner.locks.lock(&name).await;
            for error in engine.update_from_host(&name).await {
                warn!(guest = %name, code = %error.code(), "{}", innkeeper_model::chain(&error));
            }
        });
    }

    /// Updates the MTU and the name servers of a guest if it runs. Returns what failed; the one does not depend on the
    /// other.
    async fn update_from_host(&self, name: &GuestName) -> Vec<EngineError> {
        let host = &self.inner.host;
        let running = async {
            let unit = host.units.phase(name).await?;
            let guest = self.inner.store.guest(name).await?;
            Ok(guest.zip(unit.and_then(|unit| unit.leader)))
        };
        match running.await {
            Ok(Some((guest, leader))) => [
                host.network.follow_uplink(&guest, leader).await,
                host.secrets.follow_host(&guest).await,
            ]
            .into_iter()
            .filter_map(|followed| followed.err().map(EngineError::from))
            .collect(),
            Ok(None) => Vec::new(),
            Err(error) => vec![error],
        }
    }

    /// Makes a guest as wanted that nobody looked after for a while.
    fn spawn_restore(&self, name: GuestName) {
        let engine = self.clone();
        self.spawn(async move {
            if let Err(error) = engine.hear_of_power_off(&name).await {
                warn!(guest = %name, code = %error.code(), "{}", innkeeper_model::chain(&error));
            }
            engine.spawn_drive(name, None);
        });
    }

    /// Takes note of a guest that powered itself off while no daemon was there to hear of it.
    async fn hear_of_power_off(&self, name: &GuestName) -> Result<(), EngineError> {
        let _guest = self.inner.locks.lock(name).await;
        if let Some((_, 0)) = self.ended_by_itself(name).await? {
            self.record_exit(name, 0);
            self.inner
                .store
                .set_desired_state(name, DesiredState::Stopped)
                .await?;
        }
        Ok(())
    }

    fn record_exit(&self, name: &GuestName, status: i32) {
        let about = About {
            operation: None,
            guest: Some(name.clone()),
        };
        self.inner
            .journal
            .record(&about, EventKind::Exited { status });
    }

    fn spawn_ended(&self, name: GuestName) {
        let engine = self.clone();
        self.spawn(async move {
            if let Err(error) = engine.ended(&name).await {
                warn!(guest = %name, code = %error.code(), "{}", innkeeper_model::chain(&error));
            }
        });
    }

    /// Decides what becomes of a guest whose processes ended: asked to by an operation, nothing; powered
    /// off from inside, it stays off; rebooted from inside, it starts at once; anything else is a fault,
    /// and it starts again after a pause.
    async fn ended(&self, name: &GuestName) -> Result<(), EngineError> {
        let status = {
            let _guest = self.inner.locks.lock(name).await;
            let Some((guest, status)) = self.ended_by_itself(name).await? else {
                return Ok(());
            };
            // Its cgroup is there until it is started again, unless the supervisor has removed it.
            let last = self.inner.host.units.oom_kills(name);
            self.record_oom_kills(&guest, last);
            self.record_exit(name, status);
            match status {
                0 => {
                    self.inner
                        .store
                        .set_desired_state(name, DesiredState::Stopped)
                        .await?
                }
                UnitPhase::REBOOT => {}
                _ => self.record_death(&guest, status).await?,
            }
            status
        };
        match status {
            0 | UnitPhase::REBOOT => self.spawn_drive(name.clone(), None),
            _ => self.try_again_later(name),
        }
        Ok(())
    }

    async fn ended_by_itself(&self, name: &GuestName) -> Result<Option<(Guest, i32)>, EngineError> {
        let guest = self.inner.store.guest(name).await?;
        let unit = self.inner.host.units.phase(name).await?;
        Ok(match (guest, unit.map(|unit| unit.phase)) {
            (Some(guest), Some(UnitPhase::Exited(status)))
                if guest.desired == DesiredState::Running =>
            {
                Some((guest, status))
            }
            _ => None,
        })
    }

    async fn record_death(&self, guest: &Guest, status: i32) -> Result<(), EngineError> {
        let message = format!("guest '{}' ended with status {status}", guest.name);
        let failure = Failure::new(Code::GuestDied, message).with_remedy(format!(
            "It is started again by itself; `innkeeper events --guest {}` shows the attempts.",
            guest.name
        ));
        Ok(self
            .inner
            .store
            .set_fault(&guest.name, Some(&failure))
            .await?)
    }

    /// Ends an operation that cannot be taken up again.
    async fn give_up(&self, operation: &Operation) -> Result<(), EngineError> {
        let failure = Failure::new(
            Code::GuestBusy,
            format!(
                "the {} was interrupted by a restart of innkeeperd",
                operation.verb
            ),
        );
        let failure = match operation.verb {
            Verb::Build => failure.with_remedy("Run it again; Nix keeps what it has built so far."),
            _ => failure,
        };
        self.inner
            .store
            .finish_operation(operation.id, Some(&failure))
            .await?;
        let about = About {
            operation: Some(operation.id),
            guest: operation.guest.clone(),
        };
        self.inner
            .journal
            .record(&about, EventKind::Failed { failure });
        Ok(())
    }
}

impl Inner {
    /// Asserts the firewall, and remembers whether it is there.
    async fn ensure_firewall(&self) -> Result<(), EngineError> {
        let result = self.host.firewall.ensure().await;
        self.filtered.store(result.is_ok(), Ordering::Relaxed);
        Ok(result?)
    }

    /// Makes sure that what a guest sends will be filtered, without a look at what was well the last time.
    ///
    /// # Errors
    /// When the firewall could not be asserted then, and cannot be now.
    pub(crate) async fn require_firewall(&self) -> Result<(), EngineError> {
        if self.filtered.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.ensure_firewall().await
    }
}
