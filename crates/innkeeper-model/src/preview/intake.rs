//! The protocol between `innkeeper-webhook` and `innkeeperd`: HTTP/1.1 on `<runtime_dir>/intake.sock`.
//!
//! | call | request | response |
//! | --- | --- | --- |
//! | `POST /v1/deliveries` | list of [`IntakeRequest`], at most [`MAX_BATCH`] | 200, list of [`IntakeAnswer`] |
//!
//! The answers are in the order of the requests. They are sent when all deliveries of the batch are on disk. A batch costs
//! about as much as a single delivery, so deliveries that arrive during a call are sent together in the next one. Any
//! other status, or a lost connection, leaves the outcome of the whole batch unknown: the webhook sends it again, and
//! innkeeperd recognizes recorded deliveries by their ids.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{CommandEvent, PingEvent, PullRequestEvent, RepositoryEvent};
use crate::{Failure, GuestName};

/// The name of the socket in the daemon's `runtime_dir`.
pub const INTAKE_SOCKET: &str = "intake.sock";

/// The path of the only call.
pub const INTAKE_PATH: &str = "/v1/deliveries";

/// Maximum number of deliveries in a call.
pub const MAX_BATCH: usize = 256;

/// Maximum length of a request's or response's body, in bytes. The texts in an event have at most 1 KiB each, so
/// [`MAX_BATCH`] events need less.
pub const MAX_BODY: usize = 4 << 20;

/// The event of a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IntakeEvent {
    /// A pull request.
    PullRequest(Box<PullRequestEvent>),
    /// A comment with a command.
    Command(Box<CommandEvent>),
    /// A repository.
    Repository(RepositoryEvent),
    /// A ping.
    Ping(PingEvent),
}

/// A delivery whose signature was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntakeRequest {
    /// The event.
    pub event: IntakeEvent,
    /// Time of its arrival.
    pub received_at: Timestamp,
}

/// The outcome of a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum IntakeAnswer {
    /// Recorded on disk, now or before: it will be processed, even if the daemon crashes.
    Accepted {
        /// The preview's name, existing or prospective.
        slug: GuestName,
    },
    /// Already processed: it arrived before.
    Duplicate {
        /// The preview's name, existing or prospective.
        slug: GuestName,
    },
    /// An event about a repository, or a ping. Its effects are recorded on disk.
    Noted,
    /// Not recorded: previews of this repository are not allowed.
    NotAllowed,
    /// Not recorded: all candidate names of the preview belong to other previews.
    SlugCollision,
    /// Not recorded because of an error.
    Failed {
        /// The cause.
        failure: Failure,
    },
}
