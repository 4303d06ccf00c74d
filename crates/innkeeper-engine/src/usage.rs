//! Measures the use of guests, periodically and for all guests at once.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use innkeeper_model::{Explain, GuestName, UnitPhase, chain};
use tokio::time::MissedTickBehavior;
use tracing::{debug, warn};

use crate::EngineError;
use crate::activity::{Reading, Use, is_use};
use crate::engine::Engine;
use crate::sessions::OpenSession;

/// The interval of measurements.
const INTERVAL: Duration = Duration::from_secs(2);

impl Engine {
    /// Opens a session of a user in a guest, which keeps the guest in use until it is dropped.
    #[must_use]
    pub fn open_session(&self, guest: &GuestName) -> OpenSession {
        // It may end before the next measurement.
        self.inner.note_use(guest, Use::Sessions(1));
        self.inner.sessions.open(guest)
    }

    /// Measures the use of all guests, and lets idle ones rest, until the engine stops.
    pub async fn measure(&self) {
        let mut timer = tokio::time::interval(INTERVAL);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failed = false;
        loop {
            tokio::select! {
                () = self.inner.stopping.cancelled() => return,
                _ = timer.tick() => {}
            }
            let measured = async {
                self.measure_once().await?;
                self.rest_idle().await
            };
            match measured.await {
                Ok(()) => failed = false,
                // While it lasts, each measurement would log the same.
                Err(error) if failed => debug!(code = %error.code(), "{}", chain(&error)),
                Err(error) => {
                    warn!(code = %error.code(), "the use of guests is unknown: {}", chain(&error));
                    failed = true;
                }
            }
        }
    }

    /// Measures the use of all running guests.
    ///
    /// # Errors
    /// When the store or the host cannot be queried. No guest becomes idle by that.
    pub async fn measure_once(&self) -> Result<(), EngineError> {
        let host = &self.inner.host;
        let _measuring = self.inner.measuring.lock().await;
        let operations = self.inner.store.running_operations().await?;
        let in_operation: HashSet<_> = (operations.into_iter())
            .filter(|operation| is_use(operation.verb))
            .filter_map(|operation| operation.guest)
            .collect();
        let traffic = host.traffic.traffic().await?;
        let mut readings = BTreeMap::new();
        let mut running = None;
        for guest in self.inner.store.guests().await? {
            if !guest.should_have_processes() {
                continue;
            }
            let cpu_time = host.units.cpu_time(&guest.name);
            // A guest that runs has a cgroup. Only where that does not count processor time, its processes are looked up.
            if cpu_time.is_none() {
                if running.is_none() {
                    running = Some(self.running().await?);
                }
                if !running
                    .as_ref()
                    .is_some_and(|running| running.contains(&guest.name))
                {
                    continue;
                }
            }
            let addresses = self.inner.config.range.addresses(guest.slot);
            let traffic = addresses.and_then(|addresses| traffic.get(&addresses.guest));
            let reading = Reading {
                traffic: traffic.copied().unwrap_or_default(),
                cpu_time,
                sessions: self.inner.sessions.count(&guest.name),
                in_operation: in_operation.contains(&guest.name),
            };
            readings.insert(guest.name, reading);
        }
        let now = self.inner.started.elapsed();
        self.inner.uses.lock().read(now, readings);
        Ok(())
    }

    /// Returns the guests that run. Looks at the processes of each guest.
    async fn running(&self) -> Result<HashSet<GuestName>, EngineError> {
        let units = self.inner.host.units.phases().await?;
        let running = units
            .into_iter()
            .filter(|unit| unit.phase == UnitPhase::Running);
        Ok(running.map(|unit| unit.guest).collect())
    }
}
