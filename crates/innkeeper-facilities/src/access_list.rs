//! The list of previews that are not public, for the program that checks their visitors.

use async_trait::async_trait;
use innkeeper_model::access::AccessFile;

use crate::error::FacilityError;

/// The list of previews that are not public. It stays readable while the daemon is down.
#[async_trait]
pub trait AccessList: Send + Sync {
    /// Replaces the list, atomically.
    ///
    /// # Errors
    /// When it cannot be written. The former one stays in force then.
    async fn publish(&self, list: &AccessFile) -> Result<(), FacilityError>;
}
