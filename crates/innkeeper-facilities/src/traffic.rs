//! Counters of guests' packets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use async_trait::async_trait;
use tokio::sync::mpsc::UnboundedSender;

use crate::error::FacilityError;

/// The mark (socket(7), `SO_MARK`) of the daemon's own probes of guests' ports: the firewall does not count their
/// connections.
///
/// Its bits differ from those that Kubernetes, Cilium, Calico and Tailscale use for routing.
pub const PROBE_MARK: u32 = 0x306b;

/// A number of packets, with their bytes from the IP header on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketCount {
    /// The packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The packets of one guest since an unspecified time. The counters drop to zero when the firewall is replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuestTraffic {
    /// Packets to the guest.
    pub to: PacketCount,
    /// Packets from the guest, refused ones included.
    pub from: PacketCount,
    /// Packets that open a connection to the guest. A repeated one counts again.
    pub opened: u64,
}

/// Counts guests' packets in the kernel. The daemon's own probes of guests' ports do not count.
#[async_trait]
pub trait Traffic: Send + Sync {
    /// Returns the counters of all guests by their addresses. A guest without packets may be absent.
    ///
    /// # Errors
    /// When the kernel cannot be queried. Fails rather than returning an incomplete list: an omitted guest would look idle.
    async fn traffic(&self) -> Result<BTreeMap<Ipv4Addr, GuestTraffic>, FacilityError>;

    /// Removes the counters of a guest whose network was removed, and ends [`FirstPackets::hold_refusals`].
    ///
    /// # Errors
    /// When the kernel refuses.
    async fn forget(&self, guest: Ipv4Addr) -> Result<(), FacilityError>;
}

/// Reports the first packet to each guest that rests for which its processes must run. Innkeeper's own probes do not count.
///
/// A paused guest is [watched](Self::watch). Packets to a sleeping one are reported while its address is
/// [parked](crate::Network::park).
#[async_trait]
pub trait FirstPackets: Send + Sync {
    /// Starts to watch for a packet to a guest. A packet from now on is reported, once.
    ///
    /// # Errors
    /// When the kernel refuses. The guest must not be paused then.
    async fn watch(&self, guest: Ipv4Addr) -> Result<(), FacilityError>;

    /// Watches a guest of [`Self::unreached`] on. A packet since then is reported too.
    async fn resume(&self, guest: Ipv4Addr);

    /// Stops watching. Has no effect on a guest that is not watched.
    ///
    /// # Errors
    /// When the kernel refuses.
    async fn unwatch(&self, guest: Ipv4Addr) -> Result<(), FacilityError>;

    /// Returns the guests that an earlier daemon watched and that have received no packet since. Called before the first
    /// [`Firewall::ensure`](crate::Firewall::ensure), which removes them. Empty if they are unknown.
    async fn unreached(&self) -> BTreeSet<Ipv4Addr>;

    /// Reports the next packet to a sleeping guest again, one of which was reported: once, until this is called.
    ///
    /// # Errors
    /// When the kernel refuses.
    async fn expect(&self, guest: Ipv4Addr) -> Result<(), FacilityError>;

    /// Drops the refusals of connections from the host by a guest that is about to start, for half a minute: its servers do not
    /// listen yet, and the clients try again.
    ///
    /// # Errors
    /// When the kernel refuses.
    async fn hold_refusals(&self, guest: Ipv4Addr) -> Result<(), FacilityError>;

    /// Sends the guests that received a packet: watched ones, which are no longer watched then, and sleeping ones. Reports rather
    /// a paused guest without a packet than none of a guest with one. Runs until the receiver is closed.
    async fn follow(&self, reached: UnboundedSender<BTreeSet<Ipv4Addr>>);
}
