//! Networks of guests.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpStream};

use async_trait::async_trait;
use innkeeper_model::{Guest, GuestName};

use crate::error::FacilityError;
use crate::resource::Resource;

/// Veth pairs with their addresses and routes.
#[async_trait]
pub trait Network: Resource {
    /// Gives the guest a network that is complete when this returns: veth pair, both addresses, both routes. Replaces
    /// a network that the guest had before. `leader` is the guest's first process.
    ///
    /// # Errors
    /// When the kernel refuses, or an object that is not managed by Innkeeper has the interface's name.
    async fn ensure(&self, guest: &Guest, leader: u32) -> Result<(), FacilityError>;

    /// Sets a running guest's MTU to that of the host's route to the internet, without interrupting its network.
    ///
    /// # Errors
    /// When the kernel refuses. The next call tries again.
    async fn follow_uplink(&self, _guest: &Guest, _leader: u32) -> Result<(), FacilityError> {
        Ok(())
    }

    /// Gives the network of the guest `from`, which has the same slot, to `guest`. Has no effect if it has been given already or
    /// does not exist.
    ///
    /// # Errors
    /// When the kernel refuses.
    async fn rename(&self, _from: &GuestName, _guest: &Guest) -> Result<(), FacilityError> {
        Ok(())
    }

    /// Marks the guest's interface if a former release created it without a mark.
    ///
    /// # Errors
    /// When the kernel refuses.
    async fn adopt(&self, _guest: &Guest) -> Result<(), FacilityError> {
        Ok(())
    }

    /// Returns the number of open connections to the guest's SSH server. `leader` is the guest's first process.
    ///
    /// # Errors
    /// When the kernel cannot be queried. Fails rather than returning zero: a guest with an open session would be paused.
    async fn ssh_sessions(&self, guest: &Guest, leader: u32) -> Result<usize, FacilityError>;

    /// Connects to a TCP port of the guest: on its loopback, from inside its network, then on its own address. `None` if none of
    /// them accepts a connection. The stream is non-blocking. `leader` is the guest's first process.
    ///
    /// # Errors
    /// When the guest's network cannot be entered.
    async fn connect(
        &self,
        guest: &Guest,
        leader: u32,
        port: u16,
    ) -> Result<Option<TcpStream>, FacilityError>;

    /// Reports whether link, address and route on the host's side are as [`Self::ensure`] leaves them.
    ///
    /// # Errors
    /// When the kernel cannot be queried.
    async fn is_complete(&self, guest: &Guest) -> Result<bool, FacilityError>;

    /// Prepares the host for [`Self::park`]. Has no effect the second time.
    ///
    /// # Errors
    /// When the kernel refuses.
    async fn prepare_parking(&self) -> Result<(), FacilityError>;

    /// Parks the address of a guest: while it has no network, packets of the host to it are discarded without an error, so that
    /// TCP sends them again, and [`FirstPackets`](crate::FirstPackets) reports them. A network of [`Self::ensure`] precedes
    /// that. Has no effect on a parked address.
    ///
    /// # Errors
    /// When the kernel refuses, or an object that is not managed by Innkeeper has the interface's name.
    async fn park(&self, guest: Ipv4Addr) -> Result<(), FacilityError>;

    /// Ends [`Self::park`]. Has no effect on other addresses.
    ///
    /// # Errors
    /// When the kernel refuses.
    async fn unpark(&self, guest: Ipv4Addr) -> Result<(), FacilityError>;

    /// Reports whether packets to an address are discarded because it is parked.
    ///
    /// # Errors
    /// When the kernel cannot be queried.
    async fn is_parked(&self, guest: Ipv4Addr) -> Result<bool, FacilityError>;

    /// Lists the parked addresses.
    ///
    /// # Errors
    /// When the kernel cannot be queried.
    async fn parked(&self) -> Result<BTreeSet<Ipv4Addr>, FacilityError>;
}
