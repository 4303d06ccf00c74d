//! Cache of built flake outputs, so that the next guest from the same output does not wait for Nix.

use innkeeper_model::api::CachedClosure;
use innkeeper_model::{Installable, StorePath};

use super::Store;
use crate::database::Durability;
use crate::error::StoreError;
use crate::sql::closures;

impl Store {
    /// Returns the cached closure of a flake output.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn cached_closure(
        &self,
        installable: &Installable,
    ) -> Result<Option<CachedClosure>, StoreError> {
        let installable = installable.clone();
        self.read("read a cached closure", move |connection| {
            closures::find(connection, &installable)
        })
        .await
    }

    /// Caches the closure of a flake output, in place of an earlier one.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn cache_closure(
        &self,
        installable: &Installable,
        closure: &StorePath,
        fingerprint: &str,
    ) -> Result<(), StoreError> {
        let (installable, closure) = (installable.clone(), closure.clone());
        let fingerprint = fingerprint.to_owned();
        let action = "cache a closure";
        self.write(action, Durability::Soon, move |transaction| {
            closures::replace(transaction, &installable, &closure, &fingerprint)
        })
        .await
    }
}
