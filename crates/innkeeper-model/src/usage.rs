//! The use of guests, as `innkeeper top` shows it.

use serde::{Deserialize, Serialize};

use crate::{GuestKind, GuestName, GuestState, Level, MemorySize};

/// The use of a guest that runs or rests, by the last measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GuestUsage {
    /// Its name.
    pub name: GuestName,
    /// Its kind.
    pub kind: GuestKind,
    /// Its state.
    pub state: GuestState,
    /// Its level.
    pub level: Level,
    /// Memory that it uses, without the part of the file cache that the kernel can free at once, in bytes. `None` while it is
    /// asleep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Its limit of memory.
    pub memory_limit: MemorySize,
    /// The least disk space of its files, in bytes: counting those in a directory stops after two seconds. `None` until it is
    /// measured. Measurements are repeated after ten minutes, those of previews after an hour, and later with many guests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// Processor time in percent of one processor between the last two measurements. `None` before the second one, while the
    /// guest is asleep, and where the host does not count it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<f64>,
    /// Bytes that it received in each second between the last two measurements, without the daemon's own probes.
    pub received_per_second: f64,
    /// Bytes that it sent, likewise.
    pub sent_per_second: f64,
    /// Number of open sessions: commands that users run in it.
    pub sessions: usize,
    /// Seconds since its last use. Counted from the start of the daemon at the earliest. `None` while it is asleep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_seconds: Option<u64>,
    /// The last use, as a noun phrase. While `idle_seconds` is small, it is the reason that the guest is not idle. `None`
    /// while it is asleep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_use: Option<String>,
    /// Its place in the order in which guests are put to sleep when memory runs short: 1 for the next one. `None` for a guest
    /// that is not put to sleep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sleep_order: Option<usize>,
    /// The reason for this place, or for having none.
    pub sleep_reason: String,
}
