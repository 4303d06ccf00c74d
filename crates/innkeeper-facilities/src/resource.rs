//! Listing and removing: common to all resources.

use async_trait::async_trait;
use innkeeper_model::api::Check;
use innkeeper_model::{GuestName, Ownership};

use crate::error::FacilityError;

/// An object on the host whose name follows Innkeeper's naming.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Found {
    /// The guest that the name refers to. `None` for remains of an interrupted removal or an unfinished object: these
    /// never belong to a guest.
    pub guest: Option<GuestName>,
    /// Its name on the host: a path, an interface, a unit. [`Resource::sweep`] takes it back.
    pub object: String,
    /// Its owner.
    pub ownership: Ownership,
}

impl Found {
    /// An object of this daemon.
    #[must_use]
    pub fn ours(guest: Option<GuestName>, object: String) -> Self {
        Self {
            guest,
            object,
            ownership: Ownership::Ours,
        }
    }
}

/// A kind of object on the host, which can be listed and removed.
#[async_trait]
pub trait Resource: Send + Sync {
    /// The resource's name, such as `rootfs`.
    fn kind(&self) -> &'static str;

    /// Lists all objects on the host that follow Innkeeper's naming, of any owner, recorded in the store or not.
    ///
    /// # Errors
    /// When the host cannot be queried. Fails rather than returning an empty list: callers would miss orphans and
    /// delete records too early.
    async fn observe(&self) -> Result<Vec<Found>, FacilityError>;

    /// Removes all objects of a guest and returns when they are gone. Another daemon's objects of the same name stay.
    ///
    /// # Errors
    /// When an object is left.
    async fn remove(&self, guest: &GuestName) -> Result<(), FacilityError>;

    /// Removes one object that [`Self::observe`] found and that belongs to no guest. Has no effect if another daemon
    /// owns it by now.
    ///
    /// # Errors
    /// When it is left.
    async fn sweep(&self, found: &Found) -> Result<(), FacilityError>;

    /// Checks the host's requirements of this resource, without changing anything.
    async fn check(&self) -> Vec<Check>;
}
