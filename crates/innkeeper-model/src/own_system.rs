//! Systems that guests have built for themselves.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Failure, StorePath};

/// The system that the guest's own Nix profile names, in place of the closure from the host.
///
/// The guest determines it: it is a statement of the guest, and is never resolved on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OwnSystem {
    /// The store path. It may exist in the guest only.
    pub system: StorePath,
    /// The state.
    pub state: OwnSystemState,
    /// The reason why it did not come up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Time at which the profile was first seen to name it.
    pub since: Timestamp,
    /// Time of the last change of the state.
    pub at: Timestamp,
}

impl OwnSystem {
    /// Creates a system that was just found.
    #[must_use]
    pub fn found(system: StorePath) -> Self {
        let now = Timestamp::now();
        Self {
            system,
            state: OwnSystemState::Pending,
            failure: None,
            since: now,
            at: now,
        }
    }

    /// Returns what holds for a copy of the guest, which has not started yet.
    #[must_use]
    pub fn copied(self) -> Self {
        match self.state.is_bootable() {
            true => self.with_state(OwnSystemState::Pending, None),
            false => self,
        }
    }

    /// Returns the same system in another state.
    #[must_use]
    pub fn with_state(self, state: OwnSystemState, failure: Option<Failure>) -> Self {
        Self {
            state,
            failure,
            at: Timestamp::now(),
            ..self
        }
    }
}

/// The state of an [`OwnSystem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OwnSystemState {
    /// The guest boots it at its next start. It may run it already, after a switch in the guest.
    Pending,
    /// The guest was started with it, and its health is not known yet.
    Booting,
    /// The guest came up with it at its last start.
    Booted,
    /// The guest did not come up with it, and is being stopped.
    Failing,
    /// The guest did not come up with it, and boots the closure from the host until its profile names another system.
    Failed,
    /// A later request gave the guest another closure from the host, which it boots until its profile names another system.
    Replaced,
}

impl OwnSystemState {
    /// Reports whether the guest boots the system at its next start.
    #[must_use]
    pub fn is_bootable(self) -> bool {
        match self {
            Self::Pending | Self::Booting | Self::Booted => true,
            Self::Failing | Self::Failed | Self::Replaced => false,
        }
    }

    /// Returns the state in words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "boots at the next start",
            Self::Booting => "is booting",
            Self::Booted => "booted",
            Self::Failing | Self::Failed => "did not come up",
            Self::Replaced => "replaced by agent set",
        }
    }
}

impl fmt::Display for OwnSystemState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
