//! The network of a guest.

use innkeeper_model::{Guest, Level};

use super::Drive;
use crate::EngineError;

impl Drive<'_> {
    /// Completes the network of a guest that waits at its door. For one that was asleep, connections that wait go on.
    pub(super) async fn ensure_network(&self, guest: &Guest) -> Result<(), EngineError> {
        let (inner, host) = (self.inner, &self.inner.host);
        inner.require_firewall().await?;
        if self.waits_complete && host.network.is_complete(guest).await? {
            return Ok(());
        }
        let unit = host.units.phase(self.name).await?;
        let leader = unit.and_then(|unit| unit.leader);
        let leader = leader.ok_or_else(|| {
            EngineError::Invalid(format!(
                "guest '{}' ended before it had a network",
                self.name
            ))
        })?;
        let was_asleep = inner.is_parked(guest).await?;
        if was_asleep && let Some(address) = inner.address(guest) {
            host.packets.hold_refusals(address).await?;
        }
        host.network.ensure(guest, leader).await?;
        // Last: until then, packets are discarded rather than sent elsewhere.
        if was_asleep {
            inner.unpark(guest).await?;
        }
        Ok(())
    }

    /// Removes the network, and ends the parking of the address of a guest that packets do not wake.
    pub(super) async fn remove_network(&self, guest: &Guest) -> Result<(), EngineError> {
        let host = &self.inner.host;
        host.network.remove(self.name).await?;
        // After the last packet.
        if let Some(address) = self.inner.address(guest) {
            host.traffic.forget(address).await?;
        }
        match guest.rests() {
            Some(Level::Asleep) => Ok(()),
            _ => self.inner.unpark(guest).await,
        }
    }
}
