//! The overview of a daemon.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Check, RetainedSpace};
use crate::{GuestState, HostMemory, Operation};

/// An overview of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// When it started.
    pub started_at: Timestamp,
    /// The supervisor: `systemd` or `direct`.
    pub supervisor: String,
    /// True if each guest has its own user namespace.
    pub user_namespaces: bool,
    /// Number of guests by state.
    pub guests: Vec<(GuestState, usize)>,
    /// Number of slots in use.
    pub slots_taken: usize,
    /// Number of slots in the subnet.
    pub slots: usize,
    /// Retained files of destroyed agents.
    #[serde(default)]
    pub retained: RetainedSpace,
    /// The pools of guests that wait without a name, as `doctor` reports them. Empty without pools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<Check>,
    /// Operations in progress.
    pub operations: Vec<Operation>,
    /// The host's memory. `None` where it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<HostMemory>,
    /// The limits of the audit log: older entries are deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditRetention>,
    /// The daemon's resident memory, in bytes.
    pub resident_bytes: u64,
}

/// The limits of the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditRetention {
    /// The maximum age of its entries in days, counted while the daemon runs.
    pub days: u32,
    /// The maximum number of its entries.
    pub entries: u32,
}
