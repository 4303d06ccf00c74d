//! Closures and their GC roots.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use innkeeper_model::{BuildProgress, Guest, GuestName, Installable, StorePath, Trust};

use crate::error::FacilityError;
use crate::resource::Resource;

/// Receives the progress of a build. Must not block.
pub type ProgressSink = Arc<dyn Fn(BuildProgress) + Send + Sync>;

/// A closure that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The closure.
    pub closure: StorePath,
    /// The fingerprint of its inputs; equal fingerprints give equal closures.
    pub fingerprint: String,
}

/// The priority of a build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Effort {
    /// Somebody waits for it.
    #[default]
    Normal,
    /// Nobody waits for it: builders have one processor each, and Nix itself the lowest priority. It fails when a build
    /// begins that somebody waits for.
    Background,
}

/// Closures, and the GC roots that keep them.
#[async_trait]
pub trait Closures: Resource {
    /// Builds a flake output, unless its inputs have `known.fingerprint` and `known.closure` still exists. The result
    /// is kept from Nix's garbage collection until the same output is built again. Coalesces concurrent builds of the
    /// same output and effort: a normal build does not wait for one in the background.
    ///
    /// For a [`Trust::Member`], Nix fetches and evaluates as an unprivileged user, and local references are refused.
    ///
    /// # Errors
    /// When Nix is missing, the flake does not exist or is refused, the build fails or the result has no `init`.
    async fn build(
        &self,
        installable: &Installable,
        trust: Trust,
        known: Option<&Built>,
        effort: Effort,
        progress: ProgressSink,
    ) -> Result<Built, FacilityError>;

    /// Checks that the disk of the store has space for a build in the background.
    ///
    /// # Errors
    /// When it has not, or cannot be queried.
    async fn require_space(&self) -> Result<(), FacilityError>;

    /// Checks that a store path exists and that a guest can boot from it.
    ///
    /// # Errors
    /// When it is missing or has no executable `init`.
    async fn verify(&self, closure: &StorePath) -> Result<(), FacilityError>;

    /// Checks that Nix's database lists a store path as valid. A path that is still being built is not valid, nor is
    /// one that something else left in the store directory.
    ///
    /// # Errors
    /// When it is not valid, or Nix cannot be run.
    async fn require_registered(&self, closure: &StorePath) -> Result<(), FacilityError>;

    /// Gives the guest a GC root for its closure, in place of any other that it has. A guest that
    /// [builds with Nix](Self::builds_with_nix) also gets a current list of the paths of the host's store that it may use, and
    /// GC roots for them.
    ///
    /// # Errors
    /// When the root cannot be written.
    async fn ensure(&self, guest: &Guest, closure: &StorePath) -> Result<(), FacilityError>;

    /// Reports whether the guest, with this closure, gets the host's store for a Nix of its own when it starts. Only agents do.
    ///
    /// # Errors
    /// When the closure cannot be read.
    async fn builds_with_nix(
        &self,
        guest: &Guest,
        closure: &StorePath,
    ) -> Result<bool, FacilityError>;

    /// Gives a guest the GC roots that the files of another one need, before it gets a copy of them.
    ///
    /// # Errors
    /// When the roots cannot be written.
    async fn inherit(&self, origin: &GuestName, guest: &GuestName) -> Result<(), FacilityError>;

    /// Copies closures to a directory, as a binary cache of Nix. Adds to the contents of the directory.
    ///
    /// # Errors
    /// When Nix cannot copy them.
    async fn export(&self, closures: &[StorePath], to: &Path) -> Result<(), FacilityError>;

    /// Copies a closure from a directory that [`Self::export`] has written to the host's store. Signatures are not checked:
    /// the caller must trust the directory.
    ///
    /// # Errors
    /// When the directory lacks it, or Nix cannot copy it.
    async fn import(&self, closure: &StorePath, from: &Path) -> Result<(), FacilityError>;

    /// Gives the guest a second GC root, for the closure that it returns to if a change fails. In place of any other such
    /// root that it has. [`Resource::remove`] removes both roots.
    ///
    /// # Errors
    /// When the root cannot be written.
    async fn ensure_former(
        &self,
        guest: &GuestName,
        closure: &StorePath,
    ) -> Result<(), FacilityError>;

    /// Removes the guest's second GC root.
    ///
    /// # Errors
    /// When the root cannot be removed.
    async fn remove_former(&self, guest: &GuestName) -> Result<(), FacilityError>;

    /// Reports whether a closure contains an executable file that guests can start, by its path in the closure.
    ///
    /// # Errors
    /// When the closure cannot be read.
    async fn has_program(
        &self,
        closure: &StorePath,
        program: &'static str,
    ) -> Result<bool, FacilityError>;
}
