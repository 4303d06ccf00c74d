//! The load of the host's processors.

use crate::error::FacilityError;

/// Reads the load of the host's processors.
pub trait Load: Send + Sync {
    /// Returns the time in which some process waited for a processor, in percent of the last ten seconds.
    ///
    /// # Errors
    /// When the kernel cannot be queried.
    fn waiting_percent(&self) -> Result<f64, FacilityError>;
}
