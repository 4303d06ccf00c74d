//! Operations: requests in progress, and their events.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Failure, GuestName, MemorySize, StorePath};

/// The number of an operation. Later operations have higher numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct OperationId(pub i64);

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The kind of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Creates and starts a guest.
    Create,
    /// Creates and starts a guest as a copy of another one.
    Fork,
    /// Starts a stopped guest.
    Start,
    /// Stops a guest and keeps its files.
    Stop,
    /// Freezes the processes of a guest.
    Pause,
    /// Ends the processes of a guest until it is woken.
    Sleep,
    /// Lets a guest run again that was paused or asleep.
    Wake,
    /// Changes the closure or the limits of an agent.
    Set,
    /// Removes a guest with all its resources.
    Destroy,
    /// Builds a closure; concerns no guest.
    Build,
    /// Restarts a guest that exited, or after a reboot of the host.
    Restore,
    /// Takes a snapshot of a guest's files.
    Snapshot,
    /// Deletes a snapshot.
    DeleteSnapshot,
    /// Restores a guest's files from a snapshot.
    RestoreSnapshot,
    /// Creates and starts a guest with retained files.
    Undelete,
    /// Removes retained files; concerns no guest.
    Purge,
    /// Makes a backup set; concerns no guest.
    Backup,
    /// Restores guests from a backup set; concerns no guest.
    RestoreBackup,
    /// Build closures before somebody requests them.
    Prefetch,
}

impl Verb {
    /// Returns the verb as shown and stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Fork => "fork",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Pause => "pause",
            Self::Sleep => "sleep",
            Self::Wake => "wake",
            Self::Set => "set",
            Self::Destroy => "destroy",
            Self::Build => "build",
            Self::Restore => "restore",
            Self::Snapshot => "snapshot",
            Self::DeleteSnapshot => "delete_snapshot",
            Self::RestoreSnapshot => "restore_snapshot",
            Self::Undelete => "undelete",
            Self::Purge => "purge",
            Self::Backup => "backup",
            Self::RestoreBackup => "restore_backup",
            Self::Prefetch => "prefetch",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The state of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// In progress. It continues after a crash of the daemon.
    Running,
    /// Succeeded.
    Done,
    /// Failed.
    Failed,
}

/// A recorded request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Operation {
    /// Its number.
    pub id: OperationId,
    /// The guest that it concerns.
    pub guest: Option<GuestName>,
    /// Its kind.
    pub verb: Verb,
    /// Its state.
    pub state: OperationState,
    /// The requester: `uid:<n>` for a caller on the socket, `innkeeperd` for the daemon itself.
    pub actor: String,
    /// Time of the request.
    pub started_at: Timestamp,
    /// Time of the end.
    pub finished_at: Option<Timestamp>,
    /// The cause of a failure.
    pub failure: Option<Failure>,
}

/// An entry of the event log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// Its number, from which a client resumes. Zero for progress, which is not stored.
    pub seq: i64,
    /// Time of the event.
    pub time: Timestamp,
    /// The operation that it belongs to.
    pub operation: Option<OperationId>,
    /// The guest that it concerns.
    pub guest: Option<GuestName>,
    /// Kind and details.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// The kind of an event, with its details.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// An operation was recorded.
    Accepted {
        /// The operation's kind.
        verb: Verb,
    },
    /// A step of an operation started.
    StepStarted {
        /// The step, such as `ensure-rootfs`.
        step: String,
    },
    /// A step of an operation succeeded.
    StepDone {
        /// The step.
        step: String,
        /// Duration in microseconds.
        micros: u64,
    },
    /// A step failed. The operation is rolled back or stays at this step.
    StepFailed {
        /// The step.
        step: String,
        /// The cause.
        failure: Failure,
    },
    /// Progress of a build. Not stored.
    Progress {
        /// The progress.
        progress: BuildProgress,
    },
    /// A build succeeded.
    Built {
        /// The flake output or path, as requested.
        what: String,
        /// The closure.
        closure: StorePath,
    },
    /// An operation succeeded.
    Finished,
    /// An operation failed.
    Failed {
        /// The cause.
        failure: Failure,
    },
    /// A guest exited.
    Exited {
        /// Its exit status; see [`crate::UnitPhase::Exited`].
        status: i32,
    },
    /// The kernel killed processes of a guest for lack of memory.
    OomKilled {
        /// Number of processes since the previous event.
        kills: u64,
        /// The guest's memory limit.
        memory: MemorySize,
    },
    /// An attempt to bring a preview's commit up began.
    Attempt {
        /// Its number; see [`crate::preview::Rollout::attempt`].
        number: u64,
        /// The commit.
        commit: String,
    },
    /// A message for readers of the log.
    Note {
        /// A whole sentence.
        text: String,
    },
}

impl EventKind {
    /// Reports whether this is the last event of its operation.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Finished | Self::Failed { .. })
    }
}

/// Progress of a build, from Nix's log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BuildProgress {
    /// Nix's current activity, such as `building nixos-system-agent`.
    pub activity: String,
    /// Derivations built so far.
    pub built: u64,
    /// Derivations to build, as far as Nix knows.
    pub to_build: u64,
    /// Bytes fetched so far.
    pub fetched_bytes: u64,
    /// Bytes to fetch, as far as Nix knows.
    pub to_fetch_bytes: u64,
}
