//! Connections to ports of guests.

use std::net::TcpStream;

use innkeeper_model::GuestName;

use crate::{Engine, EngineError};

impl Engine {
    /// Connects to a TCP port of a guest. Servers that listen on its loopback only are reached, too.
    /// Does not wake it: [`Self::awaken`] does. The stream is non-blocking.
    ///
    /// # Errors
    /// When the guest does not exist, does not run or is paused, or accepts no connection on the port.
    pub async fn connect(&self, name: &GuestName, port: u16) -> Result<TcpStream, EngineError> {
        let guest = self.guest(name).await?;
        let kind = guest.kind;
        if let Some(level) = guest.rests() {
            let guest = guest.name;
            return Err(EngineError::Resting { guest, kind, level });
        }
        let Some(leader) = self.leader(name).await? else {
            let guest = guest.name;
            return Err(EngineError::NotRunning { guest, kind });
        };
        let connected = self.inner.host.network.connect(&guest, leader, port);
        let guest = name.clone();
        (connected.await?).ok_or(EngineError::PortClosed { guest, kind, port })
    }
}
