//! The firewall: no guest gets a network without it.

use std::sync::atomic::Ordering;

use crate::EngineError;
use crate::inner::Inner;

impl Inner {
    /// Applies the firewall and records the result.
    pub(crate) async fn ensure_firewall(&self) -> Result<(), EngineError> {
        let result = self.host.firewall.ensure().await;
        self.firewall_applied
            .store(result.is_ok(), Ordering::Relaxed);
        Ok(result?)
    }

    /// Requires the firewall before a guest gets its network. Applies it only if the last attempt failed.
    ///
    /// # Errors
    /// When the firewall cannot be applied.
    pub(crate) async fn require_firewall(&self) -> Result<(), EngineError> {
        if self.firewall_applied.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.ensure_firewall().await
    }
}
