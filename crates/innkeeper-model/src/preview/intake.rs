//! What `innkeeper-webhook` and `innkeeperd` say to each other on `<runtime_dir>/intake.sock`.
//!
//! | call | request | answer |
//! | --- | --- | --- |
//! | `POST /v1/deliveries` | list of [`IntakeRequest`], at most [`MAX_BATCH`] | 200, list of [`IntakeAnswer`] |
//!
//! Answers come in the order of the requests, when all of them are on disk. Many in one call cost about as
//! much as one: what arrives while a call is under way goes with the next one. Anything else than 200, or
//! no answer at all, means that nothing is known of any of them, and they are sent again: innkeeperd knows
//! by their names those that it has.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{PullRequestEvent, RepositoryEvent};
use crate::{Failure, GuestName};

/// The name of the socket in the daemon's `runtime_dir`.
pub const INTAKE_SOCKET: &str = "intake.sock";

/// The path of the one call.
pub const INTAKE_PATH: &str = "/v1/deliveries";

/// How many deliveries one call may hold.
pub const MAX_BATCH: usize = 256;

/// How long the body of a call, or of its answer, may be, in bytes. The texts in an event are short, each at most 1 KiB, so
/// [`MAX_BATCH`] of them need less.
pub const MAX_BODY: usize = 4 << 20;

/// What a delivery is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IntakeEvent {
    /// A pull request.
    PullRequest(Box<PullRequestEvent>),
    /// A repository.
    Repository(RepositoryEvent),
}

/// A delivery whose signature was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntakeRequest {
    /// What it says.
    pub event: IntakeEvent,
    /// When it arrived.
    pub received_at: Timestamp,
}

/// What became of a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum IntakeAnswer {
    /// It is on disk and will be acted on, whatever happens to the daemon.
    Accepted {
        /// The preview's name: the one it has, or the one it would have.
        slug: GuestName,
    },
    /// It is on disk since it arrived for the first time.
    Duplicate {
        /// The preview's name: the one it has, or the one it would have.
        slug: GuestName,
    },
    /// It is about a repository, and what follows from it is on disk.
    Noted,
    /// The daemon makes no previews for this repository. It was not recorded.
    NotAllowed,
    /// Every name that the preview could have belongs to another one. It was not recorded.
    SlugCollision,
    /// It could not be recorded.
    Failed {
        /// Why.
        failure: Failure,
    },
}
