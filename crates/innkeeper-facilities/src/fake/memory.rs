//! The host's memory and load in memory.

use async_trait::async_trait;
use innkeeper_model::api::Check;

use super::part::Part;
use crate::error::FacilityError;
use crate::load::Load;
use crate::memory::{Memory, MemoryReading};

/// The host's memory unless a test sets [`World::memory`](super::World::memory): all of 8 GiB is available.
pub(super) const PLENTY: MemoryReading = MemoryReading {
    total: 8 << 30,
    available: 8 << 30,
    swap_total: 0,
    swap_free: 0,
    stalled_percent: Some(0.0),
};

#[async_trait]
impl Memory for Part {
    fn read(&self) -> Result<MemoryReading, FacilityError> {
        self.query("memory.read")?;
        Ok(self.host.world().memory.unwrap_or(PLENTY))
    }

    async fn check(&self) -> Vec<Check> {
        Vec::new()
    }
}

impl Load for Part {
    fn waiting_percent(&self) -> Result<f64, FacilityError> {
        self.query("load.waiting_percent")?;
        Ok(self.host.world().waiting_percent)
    }
}
