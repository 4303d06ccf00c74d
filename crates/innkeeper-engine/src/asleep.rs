//! Sleeping guests: their parked addresses, and their wakes by packets.
//!
//! ```text
//!  falls asleep ──► park: packets are discarded, the first one is reported ──► wake on demand ──► unpark ──┐
//!       ▲                              ▲                                            │                     │
//!       │                              └──── expect the next one ◄── backoff ◄── fails                    │
//!       └─────────────────────────────────────────────────────────────────────────────────── rests again ◄┘
//! ```

use std::collections::HashMap;
use std::net::Ipv4Addr;

use innkeeper_model::{Explain, Guest, GuestKind, GuestName, Level, Operation, chain};
use tracing::{info, warn};

use crate::EngineError;
use crate::engine::Engine;
use crate::inner::Inner;

impl Inner {
    /// Parks the address of a guest without processes, and watches for a packet to it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) async fn park(&self, guest: &Guest) -> Result<(), EngineError> {
        if let Some(address) = self.address(guest) {
            self.watched.lock().insert(address, guest.name.clone());
            self.host.network.park(address).await?;
        }
        Ok(())
    }

    /// Ends [`Self::park`]. Has no effect on other guests.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) async fn unpark(&self, guest: &Guest) -> Result<(), EngineError> {
        if let Some(address) = self.address(guest) {
            self.watched.lock().remove(&address);
            self.host.network.unpark(address).await?;
            self.host.packets.expect(address).await?;
        }
        Ok(())
    }

    /// Reports whether a guest's address is parked.
    ///
    /// # Errors
    /// When the kernel cannot be queried.
    pub(crate) async fn is_parked(&self, guest: &Guest) -> Result<bool, EngineError> {
        Ok(match self.address(guest) {
            Some(address) => self.host.network.is_parked(address).await?,
            None => false,
        })
    }
}

impl Engine {
    /// Parks the addresses of the sleeping guests after a start of the daemon, and those of no others. The drives of guests with
    /// an `unfinished` operation decide about theirs.
    pub(crate) async fn resume_parking(
        &self,
        guests: &[Guest],
        unfinished: &HashMap<GuestName, Operation>,
    ) {
        if let Err(error) = self.park_all(guests, unfinished).await {
            warn!(code = %error.code(), "packets do not wake sleeping guests yet: {}", chain(&error));
        }
    }

    async fn park_all(
        &self,
        guests: &[Guest],
        unfinished: &HashMap<GuestName, Operation>,
    ) -> Result<(), EngineError> {
        let inner = &self.inner;
        inner.host.network.prepare_parking().await?;
        let mut others = inner.host.network.parked().await?;
        for guest in guests {
            let Some(address) = inner.address(guest) else {
                continue;
            };
            let is_asleep = guest.rests() == Some(Level::Asleep);
            if is_asleep {
                inner.watched.lock().insert(address, guest.name.clone());
            }
            if unfinished.contains_key(&guest.name) {
                others.remove(&address);
            } else if is_asleep && !others.remove(&address) {
                inner.host.network.park(address).await?;
            }
        }
        for address in others {
            inner.host.network.unpark(address).await?;
        }
        Ok(())
    }

    /// Wakes a sleeping guest that received a packet. Returns when the next packet may wake it: after a failure, that is later.
    pub(crate) async fn wake_sleeper(&self, guest: &Guest) {
        let name = &guest.name;
        info!(guest = %name, "a packet wakes it");
        if let Err(error) = self.wake_for_packet(guest).await {
            warn!(guest = %name, code = %error.code(), "a packet did not wake it: {}", chain(&error));
            let delay = self.inner.demands.refusal(name).map(|(_, left)| left);
            tokio::select! {
                () = self.inner.stopping.cancelled() => {}
                () = tokio::time::sleep(delay.unwrap_or_default()) => {}
            }
        }
    }

    /// Starts a guest on demand; a preview together with its app.
    async fn wake_for_packet(&self, guest: &Guest) -> Result<(), EngineError> {
        match self.inner.hooks.get() {
            Some(hooks) if guest.kind == GuestKind::Preview => hooks.wake(&guest.name).await,
            _ => self.wake_on_demand(&guest.name).await,
        }
    }

    /// Has the next packet to an address reported.
    pub(crate) async fn expect_packet(&self, address: Ipv4Addr) {
        if let Err(error) = self.inner.host.packets.expect(address).await {
            warn!(%address, code = %error.code(), "no packet wakes its guest: {}", chain(&error));
        }
    }
}
