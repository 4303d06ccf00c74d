//! Webhook deliveries: GitHub's JSON as the few facts that matter to a preview
//! (GitHub, "Webhook events and payloads").
//!
//! Fields that are not needed may be missing, null or of any form; new ones do no harm.

use innkeeper_model::preview::{
    PrAction, PullRequest, PullRequestEvent, RepositoryAction, RepositoryEvent,
};
use innkeeper_model::{Code, Explain};
use serde::Deserialize;

use crate::wire;

/// The header with the event's name.
pub const EVENT_HEADER: &str = "X-GitHub-Event";
/// The header with the delivery's id, the same for each redelivery.
pub const DELIVERY_HEADER: &str = "X-GitHub-Delivery";

/// The most characters of the texts that somebody else chooses and that are kept: logins, labels, ids.
const MAX_TEXT: usize = 256;

/// What a delivery is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// GitHub tries a new webhook.
    Ping,
    /// Something happened to a pull request.
    PullRequest(Box<PullRequestEvent>),
    /// A repository has another name, another owner, or is gone.
    Repository(RepositoryEvent),
    /// An event that no preview needs, by GitHub's name.
    Ignored(String),
}

/// A `pull_request` or `repository` payload that is not understood.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// It is no JSON, or a field that is needed is missing or is not what it should be.
    #[error("the {event} payload is not understood")]
    Payload {
        /// The event's name.
        event: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A header or field is empty, is longer than GitHub makes it, or cannot be shown on one line.
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
                "Set the webhook's content type to application/json (repository settings, Webhooks)."
                    .to_owned(),
            ),
            Self::Text(_) => None,
        }
    }
}

/// Reads a delivery whose signature was found good: the values of [`EVENT_HEADER`] and [`DELIVERY_HEADER`],
/// and the body.
///
/// # Errors
/// [`EventError`] for a `pull_request` or `repository` payload without what is needed. The bodies of other events are not
/// looked at.
pub fn parse(event: &str, delivery: &str, body: &[u8]) -> Result<Delivery, EventError> {
    match event {
        "ping" => Ok(Delivery::Ping),
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
    /// Nothing for an action that changes neither name nor existence.
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

/// What an edit changed: each part is there when it changed, with its former value.
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

/// A label that was deleted meanwhile is missing; such an event is of no use to anybody.
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

fn short(what: &'static str, text: String) -> Result<String, EventError> {
    let shown = !text.is_empty() && !text.chars().any(char::is_control);
    if !shown || text.chars().count() > MAX_TEXT {
        return Err(EventError::Text(what));
    }
    Ok(text)
}
