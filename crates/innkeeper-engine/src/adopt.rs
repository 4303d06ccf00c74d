//! Objects of former releases, which marked nothing of what they made with the daemon's identity.

use crate::EngineError;
use crate::engine::Engine;

impl Engine {
    /// Marks what a former release made for the recorded guests. Can be repeated. Must end before anything else is done:
    /// what has no mark afterwards is not ours.
    ///
    /// # Errors
    /// When the store or the host cannot be asked, or the host refuses a mark.
    pub async fn adopt(&self) -> Result<(), EngineError> {
        let host = &self.inner.host;
        for guest in self.inner.store.guests().await? {
            host.network.adopt(&guest).await?;
            host.rootfs.adopt(&guest.name).await?;
        }
        Ok(())
    }
}
