//! The host itself, and all of its facilities.

use std::sync::Arc;

use async_trait::async_trait;
use innkeeper_model::api::Check;

use crate::closures::Closures;
use crate::firewall::Firewall;
use crate::load::Load;
use crate::memory::Memory;
use crate::network::Network;
use crate::rootfs::{FileOwners, Rootfs};
use crate::secrets::Secrets;
use crate::traffic::{FirstPackets, Traffic};
use crate::units::Units;

/// Facts of the host that guests and the firewall copy, such as its name servers.
#[async_trait]
pub trait HostFacts: Send + Sync {
    /// Waits until a fact differs from the last time this returned. Returns at once the first time.
    async fn changed(&self);
}

/// The user ids that the host's guests can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestUserIds {
    /// Those of the host: guests have no user namespaces.
    OfHost,
    /// Those of one slot.
    OneSlot,
    /// Those of several slots.
    SeveralSlots,
}

impl From<GuestUserIds> for FileOwners {
    fn from(ids: GuestUserIds) -> Self {
        match ids {
            GuestUserIds::OfHost | GuestUserIds::SeveralSlots => Self::Guest,
            GuestUserIds::OneSlot => Self::Slot,
        }
    }
}

/// Features of the kernel and the host, detected at the start.
#[async_trait]
pub trait HostFeatures: Send + Sync {
    /// Reports whether guests could have user namespaces.
    fn user_namespaces(&self) -> bool;

    /// Returns the user ids that guests can have.
    fn guest_user_ids(&self) -> GuestUserIds;

    /// Checks the features that guests need. Changes nothing on the host.
    async fn check(&self) -> Vec<Check>;
}

/// The facilities that the engine uses.
#[derive(Clone)]
pub struct Facilities {
    /// Closures and their GC roots.
    pub closures: Arc<dyn Closures>,
    /// File trees.
    pub rootfs: Arc<dyn Rootfs>,
    /// Keys and credentials.
    pub secrets: Arc<dyn Secrets>,
    /// Facts that guests and the firewall copy.
    pub facts: Arc<dyn HostFacts>,
    /// Features of the kernel and the host.
    pub features: Arc<dyn HostFeatures>,
    /// The host's memory.
    pub memory: Arc<dyn Memory>,
    /// The load of the host's processors.
    pub load: Arc<dyn Load>,
    /// Veth pairs.
    pub network: Arc<dyn Network>,
    /// NAT and filter.
    pub firewall: Arc<dyn Firewall>,
    /// Counters of guests' packets.
    pub traffic: Arc<dyn Traffic>,
    /// Packets to paused guests.
    pub packets: Arc<dyn FirstPackets>,
    /// Processes.
    pub units: Arc<dyn Units>,
}
