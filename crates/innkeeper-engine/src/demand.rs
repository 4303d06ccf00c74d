//! Wakes guests on demand: for a request or a packet, not for a person who sees the result.

use innkeeper_model::{DesiredState, Failure, GuestName};
use innkeeper_store::StoreError;

use crate::EngineError;
use crate::engine::Engine;
use crate::idle::ACTOR;

impl Engine {
    /// Wakes a guest that is paused or asleep, and returns when its processes run; its services may take longer. Concurrent
    /// calls share one wake. Has no effect on a guest that is awake.
    ///
    /// A guest that did not wake is tried again after 30 seconds at the earliest, after 10 minutes if it fails repeatedly. Until
    /// then the call fails at once. A successful operation, such as `wake` by a user, ends this.
    ///
    /// # Errors
    /// When the guest does not exist, is stopped, or does not wake.
    pub async fn wake_on_demand(&self, name: &GuestName) -> Result<(), EngineError> {
        let demands = &self.inner.demands;
        let _demand = demands.locks.lock(name).await;
        let guest = self.guest(name).await?;
        if guest.desired != DesiredState::Running {
            let (guest, kind) = (guest.name, guest.kind);
            return Err(StoreError::GuestStopped { guest, kind }.into());
        }
        if guest.rests().is_none() {
            return Ok(());
        }
        if let Some((failure, retry_in)) = demands.refusal(name) {
            let (guest, kind) = (guest.name, guest.kind);
            return Err(EngineError::NotWoken {
                guest,
                kind,
                failure: Box::new(failure),
                retry_in,
            });
        }
        let woken = self.awaken(name, ACTOR).await;
        // The end of the daemon is no failure of the guest.
        if let Err(error) = &woken
            && !self.inner.stopping.is_cancelled()
        {
            demands.record(name, Failure::from(error));
        }
        woken.map(drop)
    }
}
