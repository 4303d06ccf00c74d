//! Webhook deliveries, reduced to the fields that previews need
//! (GitHub, "Webhook events and payloads").
//!
//! Other fields may be missing, null or of any type; unknown ones are ignored.

use innkeeper_model::preview::{
    PrAction, PullRequest, PullRequestEvent, RepositoryAction, RepositoryEvent,
};
use innkeeper_model::{Code, Explain};
use serde::Deserialize;

use crate::ping::{self, Ping};
use crate::wire;

/// The header with the event's name.
pub const EVENT_HEADER: &str = "X-GitHub-Event";
/// The header with the delivery's id, which is the same for redeliveries.
pub const DELIVERY_HEADER: &str = "X-GitHub-Delivery";

/// Maximum length of untrusted texts that are stored: logins, labels, ids.
const MAX_TEXT: usize = 256;

/// A parsed delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// GitHub tests a new webhook.
    Ping(Ping),
    /// An event of a pull request.
    PullRequest(Box<PullRequestEvent>),
    /// A repository was renamed, transferred or deleted.
    Repository(RepositoryEvent),
    /// Another event, by GitHub's name.
    Ignored(String),
}

/// An invalid `pull_request` or `repository` delivery.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// It is not JSON, or a required field is missing or invalid.
    #[error("the {event} payload is invalid")]
    Payload {
        /// The event's name.
        event: String,
        /// The problem.
        #[source]
        source: serde_json::Error,
    },
    /// A header or field is empty, too long, or has control characters.
    #[error("the delivery's {0} is empty, too long, or has control characters")]
    Text(&'static str),
}

impl Explain for EventError {
    fn code(&self) -> Code {
        Code::InvalidRequest
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Payload { .. } => Some(
                "Check that the webhook's content type (repository settings, Webhooks) is that of the body; \
                 a proxy must pass `Content-Type` and the body unchanged."
                    .to_owned(),
            ),
            Self::Text(_) => None,
        }
    }
}

/// Reports whether [`parse`] reads the payload of an event. All others are ignored.
#[must_use]
pub fn is_read(event: &str) -> bool {
    matches!(event, "ping" | "pull_request" | "repository")
}

/// Parses a delivery with a verified signature: the values of [`EVENT_HEADER`] and [`DELIVERY_HEADER`], and the JSON of the
/// body ([`crate::form::payload`]).
///
/// # Errors
/// [`EventError`] for an invalid `pull_request` or `repository` payload. The bodies of other events are not
/// parsed, except that of a `ping`, which is never invalid.
pub fn parse(event: &str, delivery: &str, body: &[u8]) -> Result<Delivery, EventError> {
    match event {
        "ping" => Ok(Delivery::Ping(ping::parse(body))),
        "pull_request" => {
            let payload: Payload =
                serde_json::from_slice(body).map_err(|source| EventError::Payload {
                    event: event.to_owned(),
                    source,
                })?;
            let event = payload.into_event(delivery)?;
            Ok(Delivery::PullRequest(Box::new(event)))
        }
        "repository" => {
            let payload: RepositoryPayload =
                serde_json::from_slice(body).map_err(|source| EventError::Payload {
                    event: event.to_owned(),
                    source,
                })?;
            Ok(match payload.into_event(delivery)? {
                Some(event) => Delivery::Repository(event),
                None => Delivery::Ignored(event.to_owned()),
            })
        }
        other => Ok(Delivery::Ignored(other.to_owned())),
    }
}

#[derive(Deserialize)]
struct RepositoryPayload {
    action: String,
    repository: wire::Repository,
}

impl RepositoryPayload {
    /// Returns `None` for an action that changes neither name nor existence.
    fn into_event(self, delivery: &str) -> Result<Option<RepositoryEvent>, EventError> {
        let action = match self.action.as_str() {
            "renamed" => RepositoryAction::Renamed,
            "transferred" => RepositoryAction::Transferred,
            "deleted" => RepositoryAction::Deleted,
            _ => return Ok(None),
        };
        let Some(id) = self.repository.id() else {
            return Ok(None);
        };
        Ok(Some(RepositoryEvent {
            delivery: short("id", delivery.to_owned())?,
            action,
            id,
            name: self.repository.full_name,
        }))
    }
}

#[derive(Deserialize)]
struct Payload {
    action: String,
    pull_request: wire::PullRequest,
    repository: wire::Repository,
    sender: Option<wire::Account>,
    label: Option<Label>,
    changes: Option<Changes>,
}

#[derive(Deserialize)]
struct Label {
    name: String,
}

/// The changes of an edit. Each changed field is present, with its former value.
#[derive(Default, Deserialize)]
struct Changes {
    title: Option<serde::de::IgnoredAny>,
    body: Option<serde::de::IgnoredAny>,
    base: Option<serde::de::IgnoredAny>,
}

impl Payload {
    fn into_event(self, delivery: &str) -> Result<PullRequestEvent, EventError> {
        let (is_fork, head_repo) = self.pull_request.head_of(&self.repository);
        let pull_request = PullRequest {
            repo: self.repository.full_name.clone(),
            number: self.pull_request.number,
        };
        let action = action(&self.action, self.label)?;
        let changes = self.changes.unwrap_or_default();
        let author = self.pull_request.author();
        Ok(PullRequestEvent {
            delivery: short("id", delivery.to_owned())?,
            action,
            is_fork,
            pull_request,
            repo_id: self.repository.id(),
            head_repo,
            author: short("author", author.clone())?,
            sender: short("sender", self.sender.map_or(author, |sender| sender.login))?,
            title_changed: changes.title.is_some(),
            body_changed: changes.body.is_some(),
            base_changed: changes.base.is_some(),
            merged: self.pull_request.is_merged(),
            updated_at: self.pull_request.updated_at(),
            head_sha: self.pull_request.head.sha,
            head_branch: self.pull_request.head.branch,
            base_branch: self.pull_request.base.branch,
        })
    }
}

/// Returns the action. An event whose label was deleted since has no label, and is ignored.
fn action(name: &str, label: Option<Label>) -> Result<PrAction, EventError> {
    Ok(match (name, label) {
        ("opened", _) => PrAction::Opened,
        ("synchronize", _) => PrAction::Synchronize,
        ("reopened", _) => PrAction::Reopened,
        ("closed", _) => PrAction::Closed,
        ("edited", _) => PrAction::Edited,
        ("labeled", Some(label)) => PrAction::Labeled(short("label", label.name)?),
        ("unlabeled", _) => PrAction::Unlabeled,
        (other, _) => PrAction::Other(short("action", other.to_owned())?),
    })
}

/// Validates the length and characters of an untrusted text.
fn short(what: &'static str, text: String) -> Result<String, EventError> {
    let printable = !text.is_empty() && !text.chars().any(char::is_control);
    if !printable || text.chars().count() > MAX_TEXT {
        return Err(EventError::Text(what));
    }
    Ok(text)
}
