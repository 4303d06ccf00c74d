//! How the wanted commit of a preview comes up: attempts, times, and its effect on the closure.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::PackageChanges;

/// The deployment of a preview's wanted commit. A record of a former release has none of it until the next commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Rollout {
    /// The number of the last attempt to bring a commit up. It counts up over the preview's lifetime.
    pub attempt: u64,
    /// Time at which the wanted commit was queued.
    pub began_at: Option<Timestamp>,
    /// Time at which the present state began.
    pub state_since: Option<Timestamp>,
    /// Time at which the live commit came up.
    pub live_at: Option<Timestamp>,
    /// Time from `began_at` to `live_at` of the live commit, in milliseconds.
    pub duration_ms: Option<u64>,
    /// The difference of the live closure from the one that was live before. `None` if there was none before.
    pub changes: Option<PackageChanges>,
}
