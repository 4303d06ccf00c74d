//! The use of guests, as `innkeeper top` shows it.

use serde::{Deserialize, Serialize};

use crate::{GuestKind, GuestName, GuestState, MemorySize};

/// The running guests by their use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UsageReport {
    /// The guests, the busiest first.
    pub guests: Vec<GuestUsage>,
}

/// The use of one running guest by the last measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuestUsage {
    /// Its name.
    pub name: GuestName,
    /// Its kind.
    pub kind: GuestKind,
    /// Its state.
    pub state: GuestState,
    /// Memory that it uses, without the part of the file cache that the kernel can free at once, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Its limit of memory.
    pub memory_limit: MemorySize,
    /// Processor time in percent of one processor between the last two measurements. `None` before the second one, and
    /// where the host does not count it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<f64>,
    /// Bytes that it received in each second between the last two measurements, without the daemon's own probes.
    pub received_per_second: f64,
    /// Bytes that it sent, likewise.
    pub sent_per_second: f64,
    /// Number of open sessions: commands that users run in it.
    pub sessions: usize,
    /// Seconds since its last use. Counted from the start of the daemon at the earliest.
    pub idle_seconds: u64,
    /// The last use, as a noun phrase. While `idle_seconds` is small, it is the reason that the guest is not idle.
    pub last_use: String,
}
