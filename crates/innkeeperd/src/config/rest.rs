//! The settings of guests that are not in use.

use innkeeper_engine::ActivityConfig;
use serde::{Deserialize, Serialize};

/// The measurement of guests' use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RestSettings {
    /// The traffic of a guest, in bytes per second over ten seconds, from which it is in use. Less is a keep-alive.
    pub bytes_per_second: u64,
    /// The processor time of a guest, in percent of one processor over ten seconds, from which it is in use.
    pub cpu_percent: u32,
}

impl Default for RestSettings {
    fn default() -> Self {
        let ActivityConfig {
            bytes_per_second,
            cpu_percent,
        } = ActivityConfig::default();
        Self {
            bytes_per_second,
            cpu_percent,
        }
    }
}

impl RestSettings {
    /// Returns the thresholds for the engine.
    #[must_use]
    pub fn activity(&self) -> ActivityConfig {
        ActivityConfig {
            bytes_per_second: self.bytes_per_second,
            cpu_percent: self.cpu_percent,
        }
    }

    /// Checks the section. The error is the setting and the problem.
    pub(super) fn validate(&self) -> Result<(), (&'static str, &'static str)> {
        if self.bytes_per_second == 0 {
            return Err((
                "rest.bytes_per_second",
                "it must be at least 1, or guests without traffic would be in use",
            ));
        }
        if self.cpu_percent == 0 {
            return Err((
                "rest.cpu_percent",
                "it must be at least 1, or guests without processes that run would be in use",
            ));
        }
        Ok(())
    }
}
