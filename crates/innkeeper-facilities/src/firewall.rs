//! The host's rules for guests and builds.

use async_trait::async_trait;
use innkeeper_model::api::Check;

use crate::error::FacilityError;

/// The host's rules for guests: NAT, the filter between guests and everything else, IP forwarding.
#[async_trait]
pub trait Firewall: Send + Sync {
    /// Replaces Innkeeper's table as a whole if it differs from the desired rules, and turns on forwarding. Name
    /// servers are the current ones.
    ///
    /// # Errors
    /// When the kernel refuses the rules. The former ones stay in force then.
    async fn ensure(&self) -> Result<(), FacilityError>;

    /// Waits until another program removes Innkeeper's table, as a firewall that is restarted does. Never returns if
    /// the driver receives no such events.
    async fn disturbed(&self) {
        std::future::pending::<()>().await;
    }

    /// Checks that the rules in force are Innkeeper's, without changing anything.
    async fn check(&self) -> Vec<Check>;
}

/// The kernel's view of the users that Nix builds as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Builders {
    /// Members of a group, by its number.
    Group(u32),
    /// Users of a range from which Nix allocates them.
    Allocated(std::ops::RangeInclusive<u32>),
}

/// Keeps builds away from the host's own services and from private networks.
#[async_trait]
pub trait BuildNetwork: Send + Sync {
    /// Filters the network of these users.
    ///
    /// # Errors
    /// When the kernel refuses the rules. No build may start then.
    async fn ensure(&self, builders: &Builders) -> Result<(), FacilityError>;
}
