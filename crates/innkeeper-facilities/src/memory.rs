//! The host's memory.

use async_trait::async_trait;
use innkeeper_model::api::Check;

use crate::error::FacilityError;

/// The host's memory at one time, in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemoryReading {
    /// All of it.
    pub total: u64,
    /// The part that programs can get without a process being killed or swapped out, as the kernel estimates it.
    pub available: u64,
    /// All swap, zram included.
    pub swap_total: u64,
    /// The part of it that is free.
    pub swap_free: u64,
    /// The time in which all processes that could run waited for memory, in percent of the last ten seconds. `None` where the
    /// kernel does not measure it.
    pub stalled_percent: Option<f64>,
}

impl MemoryReading {
    /// Returns the available memory in percent of all of it, rounded down.
    #[must_use]
    pub fn available_percent(&self) -> u64 {
        let percent = u128::from(self.available) * 100 / u128::from(self.total.max(1));
        u64::try_from(percent).unwrap_or(u64::MAX)
    }
}

/// Reads the host's memory.
#[async_trait]
pub trait Memory: Send + Sync {
    /// Returns the memory now.
    ///
    /// # Errors
    /// When the kernel cannot be queried.
    fn read(&self) -> Result<MemoryReading, FacilityError>;

    /// Checks whether a paused guest's memory can be reclaimed. Changes nothing on the host.
    async fn check(&self) -> Vec<Check>;
}
