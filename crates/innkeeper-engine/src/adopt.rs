//! Adoption of objects that a release without daemon marks created.

use crate::EngineError;
use crate::engine::Engine;

impl Engine {
    /// Marks the unmarked objects of recorded guests. Idempotent. Must finish before any other work: afterwards, an
    /// unmarked object counts as a stranger's.
    ///
    /// # Errors
    /// When the store or the host fails.
    pub async fn adopt(&self) -> Result<(), EngineError> {
        let host = &self.inner.host;
        for guest in self.inner.store.guests().await? {
            host.network.adopt(&guest).await?;
            host.rootfs.adopt(&guest.name).await?;
        }
        Ok(())
    }
}
