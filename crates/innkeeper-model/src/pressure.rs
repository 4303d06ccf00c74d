//! The host's memory, and what the daemon does when it runs short.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How short the host's memory is. Each band includes the actions of those before it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum MemoryBand {
    /// There is enough.
    #[default]
    Normal,
    /// Idle guests are paused, and the memory of paused ones is reclaimed.
    Pause,
    /// Idle guests are put to sleep.
    Sleep,
    /// No guest is started.
    Refuse,
    /// Guests in use are put to sleep.
    Emergency,
}

impl MemoryBand {
    /// Returns the word as shown and in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Pause => "pause",
            Self::Sleep => "sleep",
            Self::Refuse => "refuse",
            Self::Emergency => "emergency",
        }
    }
}

impl fmt::Display for MemoryBand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The host's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostMemory {
    /// All of it, in bytes.
    pub total_bytes: u64,
    /// The part that programs can get without a process being killed or swapped out, in bytes.
    pub available_bytes: u64,
    /// The same in percent, rounded down.
    pub available_percent: u64,
    /// All swap, zram included, in bytes.
    pub swap_total_bytes: u64,
    /// The part of it that is free, in bytes.
    pub swap_free_bytes: u64,
    /// The time in which all processes that could run waited for memory, in percent of the last ten seconds. `None` where the
    /// kernel does not measure it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stalled_percent: Option<u64>,
    /// What the daemon does about it.
    pub band: MemoryBand,
}
