//! Operations: what somebody asked for, and the events on the way there.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Failure, GuestName, MemorySize, StorePath};

/// The number of an operation. It only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OperationId(pub i64);

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Make a guest and start it.
    Create,
    /// Make a guest that begins as a copy of another one, and start it.
    Fork,
    /// Start a guest that was stopped.
    Start,
    /// Stop a guest and keep it.
    Stop,
    /// Remove a guest and everything of it.
    Destroy,
    /// Build a closure; concerns no guest.
    Build,
    /// Bring back a guest that ended by itself, or that a reboot of the host took down.
    Restore,
    /// Take a snapshot of a guest's files.
    Snapshot,
    /// Delete a snapshot.
    DeleteSnapshot,
    /// Make a guest's files be as in a snapshot.
    RestoreSnapshot,
    /// Create a guest with the files of a destroyed one, and start it.
    Undelete,
    /// Remove the files of a destroyed guest; concerns no guest.
    Purge,
}

impl Verb {
    /// The verb as shown and stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Fork => "fork",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Destroy => "destroy",
            Self::Build => "build",
            Self::Restore => "restore",
            Self::Snapshot => "snapshot",
            Self::DeleteSnapshot => "delete_snapshot",
            Self::RestoreSnapshot => "restore_snapshot",
            Self::Undelete => "undelete",
            Self::Purge => "purge",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// Recorded and not ended. After a crash of the daemon it goes on.
    Running,
    /// Ended as asked.
    Done,
    /// Ended with a failure.
    Failed,
}

/// One thing that somebody asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its number.
    pub id: OperationId,
    /// The guest it concerns.
    pub guest: Option<GuestName>,
    /// What it does.
    pub verb: Verb,
    /// How far it is.
    pub state: OperationState,
    /// Who asked: `uid:<n>` for a caller on the socket, `innkeeperd` for the daemon itself.
    pub actor: String,
    /// When the intent was recorded.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Why it failed.
    pub failure: Option<Failure>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number, for asking for what came after it. Zero for progress that is not stored.
    pub seq: i64,
    /// When it happened.
    pub time: Timestamp,
    /// The operation it belongs to.
    pub operation: Option<OperationId>,
    /// The guest it concerns.
    pub guest: Option<GuestName>,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// An operation was recorded.
    Accepted {
        /// What it does.
        verb: Verb,
    },
    /// A step of an operation begins.
    StepStarted {
        /// The step, such as `ensure-rootfs`.
        step: String,
    },
    /// A step of an operation ended well.
    StepDone {
        /// The step.
        step: String,
        /// How long it took, in microseconds.
        micros: u64,
    },
    /// A step failed. The operation goes back from here or stays where it is.
    StepFailed {
        /// The step.
        step: String,
        /// Why.
        failure: Failure,
    },
    /// A build goes on. Not stored.
    Progress {
        /// How it goes.
        progress: BuildProgress,
    },
    /// A build has come to this.
    Built {
        /// What was built, as somebody asked for it.
        what: String,
        /// The closure.
        closure: StorePath,
    },
    /// An operation ended as asked.
    Finished,
    /// An operation ended with a failure.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// A guest ended by itself.
    Exited {
        /// Its exit status; see [`crate::UnitPhase::Exited`].
        status: i32,
    },
    /// The kernel killed processes of a guest that had used up its memory.
    OomKilled {
        /// How many since the event before.
        kills: u64,
        /// The guest's limit.
        memory: MemorySize,
    },
    /// Something that somebody who looks at the log should know.
    Note {
        /// A whole sentence.
        text: String,
    },
}

impl EventKind {
    /// Whether the operation ends with this event.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Finished | Self::Failed { .. })
    }
}

/// How a build goes, from Nix's own log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildProgress {
    /// What Nix does now, such as `building nixos-system-agent`.
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
