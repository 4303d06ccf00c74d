//! The rest of idle guests: requests and reports.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{GuestName, GuestState, IdlePolicy};

/// The longest keepalive.
pub const MAX_KEEPALIVE: Duration = Duration::from_secs(86_400);

/// The code point (RFC 2474) of packets of probes by a program that may not set marks. The firewall does not count their connections,
/// and they wake no guest. It is one of those for local use.
pub const PROBE_DSCP: u8 = 0x33;

/// Keeps a guest awake for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct KeepaliveRequest {
    /// The time in seconds from now, at most 86,400; 0 ends a keepalive.
    pub seconds: u64,
}

/// Sets the use of a guest's idle time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct IdleRequest {
    /// The policy; `null` for that of the guest's kind in the configuration.
    pub idle_policy: Option<IdlePolicy>,
}

/// The uses that keep a guest awake, and the times when it rests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RestReport {
    /// The guest.
    pub name: GuestName,
    /// Its state.
    pub state: GuestState,
    /// The policy in force.
    pub idle_policy: IdlePolicy,
    /// True if the policy is the guest's own, false if it is that of its kind.
    pub is_own_policy: bool,
    /// Seconds since the last use; `None` while the guest is not measured.
    pub idle_seconds: Option<u64>,
    /// The last use, as a noun phrase.
    pub last_use: Option<String>,
    /// The reason for which it does not rest, as a noun phrase; `None` if it may.
    pub kept_awake_by: Option<String>,
    /// Seconds until its keepalive ends.
    pub keepalive_seconds: Option<u64>,
    /// Seconds until it is paused if it is not used; 0 if that is due. `None` if it is not paused by itself.
    pub pause_in_seconds: Option<u64>,
    /// Seconds until it is put to sleep if it is not used, likewise.
    pub sleep_in_seconds: Option<u64>,
}
