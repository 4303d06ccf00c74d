//! Keys and credentials of guests.

use async_trait::async_trait;
use innkeeper_model::api::Check;
use innkeeper_model::{Guest, GuestName};

use crate::error::FacilityError;

/// Keys and credentials in the guest's file tree.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// Writes the SSH host key (generated once), authorized keys, credentials and name resolution of a guest that does
    /// not run. Returns the public half of the host key in OpenSSH format.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    async fn ensure(&self, guest: &Guest) -> Result<String, FacilityError>;

    /// Gives the files of `former`, which has booted and is used by nobody, to `guest`: its name in place of the former one, and
    /// the current authorized keys, credentials and name servers. The host key stays. Its processes are suspended as a rule.
    /// Returns the public half of the host key. Can be repeated.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    async fn take_over(&self, guest: &Guest, former: &GuestName) -> Result<String, FacilityError>;

    /// Removes the identity of `former` from a copied file tree: host keys, machine id, host name. The guest must not
    /// run.
    ///
    /// # Errors
    /// When a part of it is left.
    async fn forget_identity(&self, guest: &Guest, former: &GuestName)
    -> Result<(), FacilityError>;

    /// Removes the files that must not outlive the guest: host keys, authorized keys, credentials. The guest must not
    /// run.
    ///
    /// # Errors
    /// When a file is left.
    async fn withdraw(&self, guest: &Guest) -> Result<(), FacilityError>;

    /// Updates a running guest's copy of host facts that changed since [`Self::ensure`]: name servers. Files that the
    /// guest has replaced stay as they are.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    async fn follow_host(&self, _guest: &Guest) -> Result<(), FacilityError> {
        Ok(())
    }

    /// Checks the host's requirements, without changing anything.
    async fn check(&self) -> Vec<Check>;
}
