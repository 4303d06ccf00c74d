//! The section `[audit]`.

use std::time::Duration;

use innkeeper_store::AuditLimits;
use serde::{Deserialize, Serialize};

/// The audit log.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditSettings {
    /// The maximum age of its entries in days, counted while the daemon runs.
    pub retention_days: u32,
    /// The maximum number of its entries; the oldest are deleted first.
    pub max_entries: u32,
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self {
            retention_days: 400,
            max_entries: 200_000,
        }
    }
}

impl AuditSettings {
    /// Returns the limits for the store.
    pub(crate) fn limits(&self) -> AuditLimits {
        const DAY: u64 = 24 * 60 * 60;
        AuditLimits {
            entries: self.max_entries,
            age: Duration::from_secs(u64::from(self.retention_days) * DAY),
        }
    }
}
