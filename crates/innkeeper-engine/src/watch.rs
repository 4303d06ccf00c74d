//! The daemon's own work: it reacts to guests that exit and to changes of the host, and reconciles periodically.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use innkeeper_model::{Code, DesiredState, Explain, Failure, Guest, GuestName, UnitPhase};
use tokio::sync::broadcast::error::RecvError;
use tracing::warn;

use crate::EngineError;
use crate::engine::Engine;
use crate::oom;

impl Engine {
    /// Runs until the engine stops. Reconciles all guests every `interval`.
    pub async fn watch(&self, interval: Duration) {
        let mut exits = self.inner.host.units.endings();
        let mut timer = tokio::time::interval(interval);
        timer.reset();
        let mut oom_timer = tokio::time::interval(oom::INTERVAL);
        let firewall = &self.inner.host.firewall;
        let facts = &self.inner.host.facts;
        let mut facts_changed = pin!(facts.changed());
        // Not cancel-safe: it inspects the notification that it received. Kept across iterations.
        let mut disturbed = pin!(firewall.disturbed());
        loop {
            tokio::select! {
                () = self.inner.stopping.cancelled() => return,
                exited = exits.recv() => match exited {
                    Ok(name) => self.spawn_handle_exit(name),
                    Err(RecvError::Lagged(_)) => self.reconcile_all().await,
                    Err(RecvError::Closed) => return,
                },
                () = &mut disturbed => {
                    warn!("the firewall's table was removed; restoring it");
                    self.reapply_firewall().await;
                    disturbed.set(firewall.disturbed());
                }
                () = &mut facts_changed => {
                    self.follow_host().await;
                    facts_changed.set(facts.changed());
                }
                _ = timer.tick() => self.reconcile_all().await,
                _ = oom_timer.tick() => self.read_oom_kills().await,
            }
        }
    }

    async fn reapply_firewall(&self) {
        if let Err(error) = self.inner.ensure_firewall().await {
            warn!(code = %error.code(), "no guest can start: {}", innkeeper_model::chain(&error));
        }
    }

    /// Reconciles the firewall, abandoned operations, retained files, and every guest without a fault. A guest with a
    /// fault is driven by its own retry. Has no effect while the host shuts down.
    async fn reconcile_all(&self) {
        if self.inner.host.units.host_is_stopping().await {
            return;
        }
        self.reapply_firewall().await;
        self.spawn_retained_maintenance(true);
        if let Err(error) = self.start_abandoned_operations().await {
            warn!(code = %error.code(), "{}", innkeeper_model::chain(&error));
        }
        for guest in self.guests_or_warn().await {
            if guest.fault.is_none() {
                self.spawn_follow_host(guest.name.clone());
                self.spawn_drive(guest.name, None);
            }
        }
    }

    /// Updates the firewall, then all guests, after the host's facts changed.
    async fn follow_host(&self) {
        self.reapply_firewall().await;
        // The first report is no change: the facts were unknown before.
        if self.inner.knows_facts.swap(true, Ordering::Relaxed) {
            self.spawn_renew_seats();
        }
        for guest in self.guests_or_warn().await {
            self.spawn_follow_host(guest.name);
        }
    }

    /// Reads the OOM kills of all guests.
    async fn read_oom_kills(&self) {
        for guest in self.guests_or_warn().await {
            let count = self.inner.host.units.oom_kills(&guest.name);
            self.record_oom_kills(&guest, count);
        }
    }

    async fn guests_or_warn(&self) -> Vec<Guest> {
        self.inner.store.guests().await.unwrap_or_else(|error| {
            warn!(code = %error.code(), "{}", innkeeper_model::chain(&error));
            Vec::new()
        })
    }

    /// Updates a running guest's copy of the host's facts. The next reconciliation retries a failure.
    fn spawn_follow_host(&self, name: GuestName) {
        let engine = self.clone();
        self.spawn(async move {
            let _guest = engine.inner.guest_locks.lock(&name).await;
            for error in engine.update_from_host(&name).await {
                warn!(guest = %name, code = %error.code(), "{}", innkeeper_model::chain(&error));
            }
        });
    }

    /// Updates the MTU and the name servers of a running guest, and the record of its own system. Attempts both and returns the failures.
    async fn update_from_host(&self, name: &GuestName) -> Vec<EngineError> {
        let host = &self.inner.host;
        let running = async {
            let unit = host.units.phase(name).await?;
            let guest = self.inner.store.guest(name).await?;
            Ok(guest.zip(unit.and_then(|unit| unit.leader)))
        };
        match running.await {
            Ok(Some((guest, leader))) => {
                self.inner.follow_own_system(&guest).await;
                [
                    host.network.follow_uplink(&guest, leader).await,
                    host.secrets.follow_host(&guest).await,
                ]
                .into_iter()
                .filter_map(|followed| followed.err().map(EngineError::from))
                .collect()
            }
            Ok(None) => Vec::new(),
            Err(error) => vec![error],
        }
    }

    fn spawn_handle_exit(&self, name: GuestName) {
        let engine = self.clone();
        self.spawn(async move {
            if let Err(error) = engine.handle_exit(name.clone()).await {
                warn!(guest = %name, code = %error.code(), "{}", innkeeper_model::chain(&error));
            }
        });
    }

    /// Handles the exit of a guest's processes. An exit that an operation requested needs no action, and neither does one while
    /// the host shuts down: the next daemon starts the guest. A power-off from
    /// inside stops the guest. A reboot from inside starts it at once. Any other status is a fault; the guest starts
    /// again after the backoff delay. A paused guest whose processes were killed falls asleep.
    async fn handle_exit(&self, name: GuestName) -> Result<(), EngineError> {
        let status = {
            let _guest = self.inner.guest_locks.lock(&name).await;
            let Some((guest, status)) = self.unrequested_exit(&name).await? else {
                return Ok(());
            };
            if self.inner.host.units.host_is_stopping().await {
                return Ok(());
            }
            // The last chance to read the count: the next start removes the cgroup, unless the supervisor has already.
            let count = self.inner.host.units.oom_kills(&name);
            self.record_oom_kills(&guest, count);
            self.record_exit(&name, status);
            match status {
                _ if guest.rests().is_some() => {
                    self.spawn_drive(name, None);
                    return Ok(());
                }
                0 => {
                    self.inner
                        .store
                        .set_desired_state(&name, DesiredState::Stopped)
                        .await?;
                }
                UnitPhase::REBOOT => {}
                _ => self.record_death(&guest, status).await?,
            }
            status
        };
        match status {
            0 | UnitPhase::REBOOT => self.spawn_drive(name, None),
            _ => self.retry_later(name),
        }
        Ok(())
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
}
