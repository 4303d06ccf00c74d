//! The use of a preview, and what it waits for: the columns of `preview list` beyond the record.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::EnvName;
use crate::BuildProgress;

/// The use of a preview, and what it waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Outlook {
    /// Time at which this was observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_at: Option<Timestamp>,
    /// Time of the last visit through its URL. `None` before the first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visited_at: Option<Timestamp>,
    /// Memory that its guest uses, in bytes. `None` while it does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Disk space of its guest's file tree and of its database on the host, in bytes, by the last measurement. `None` before the first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// The build that is in progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildProgress>,
    /// The action that it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<Wait>,
    /// The removal at the end of a grace period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removal: Option<PendingRemoval>,
    /// Secrets of which its guest has a former value. It needs a restart, such as `preview update`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stale_secrets: Vec<EnvName>,
}

/// The party that has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Party {
    /// A user with write access to the repository.
    Maintainer,
    /// The author of the commits.
    Author,
    /// The administrator of the host.
    Administrator,
    /// A user of the preview's URL.
    Visitor,
    /// The daemon, which retries.
    Innkeeper,
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Maintainer => "maintainer",
            Self::Author => "author",
            Self::Administrator => "administrator",
            Self::Visitor => "visitor",
            Self::Innkeeper => "innkeeper",
        })
    }
}

/// An action that a preview waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Wait {
    /// The party that has to act.
    pub party: Party,
    /// The action, as a noun phrase.
    pub action: String,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.party, self.action)
    }
}

/// The reason for a removal at the end of a grace period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RemovalReason {
    /// Its commits have no `preview-config.nix` any more.
    ConfigMissing,
    /// Its branch is gone.
    BranchGone,
}

/// A removal at the end of a grace period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PendingRemoval {
    /// The reason.
    pub reason: RemovalReason,
    /// Remaining time in which the daemon runs, in seconds.
    pub in_seconds: u64,
}

impl fmt::Display for PendingRemoval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.reason {
            RemovalReason::ConfigMissing => "its commit has no preview-config.nix",
            RemovalReason::BranchGone => "its branch is gone",
        };
        // The next periodic check follows the end of the period.
        let minutes = self.in_seconds.div_ceil(60);
        let (hours, minutes) = (minutes / 60, minutes % 60);
        write!(f, "{what}, removed in {hours} h {minutes} min")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_removal_shows_the_remaining_time() {
        let removal = PendingRemoval {
            reason: RemovalReason::BranchGone,
            in_seconds: 23 * 3_600 + 61,
        };
        assert_eq!(
            removal.to_string(),
            "its branch is gone, removed in 23 h 2 min"
        );
    }
}
