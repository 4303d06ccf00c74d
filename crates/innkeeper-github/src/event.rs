//! Webhook deliveries, reduced to the fields that previews need
//! (GitHub, "Webhook events and payloads").
//!
//! Other fields may be missing, null or of any type; unknown ones are ignored.

use innkeeper_model::preview::{
    CommandEvent, PrAction, PullRequest, PullRequestEvent, RepositoryAction, RepositoryEvent,
};
use serde::Deserialize;

use crate::event_error::short;
use crate::ping::{self, Ping};
use crate::{comment, wire};

pub use crate::event_error::EventError;

/// The header with the event's name.
pub const EVENT_HEADER: &str = "X-GitHub-Event";
/// The header with the delivery's id, which is the same for redeliveries.
pub const DELIVERY_HEADER: &str = "X-GitHub-Delivery";

/// A parsed delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// GitHub tests a new webhook.
    Ping(Ping),
    /// An event of a pull request.
    PullRequest(Box<PullRequestEvent>),
    /// A comment on an open pull request has a command.
    Command(CommandEvent),
    /// A repository was renamed, transferred or deleted.
    Repository(RepositoryEvent),
    /// Another event, by GitHub's name.
    Ignored(String),
}

/// Reports whether [`parse`] reads the payload of an event. All others are ignored.
#[must_use]
pub fn is_read(event: &str) -> bool {
    matches!(
        event,
        "ping" | "pull_request" | "repository" | "issue_comment"
    )
}

/// Parses a delivery with a verified signature: the values of [`EVENT_HEADER`] and [`DELIVERY_HEADER`], and the JSON of the
/// body ([`crate::form::payload`]).
///
/// # Errors
/// [`EventError`] for an invalid `pull_request` or `repository` payload, or one of an `issue_comment` with a command. The
/// bodies of other events are not parsed, except that of a `ping`, which is never invalid.
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
        "issue_comment" => Ok(match comment::parse(delivery, body)? {
            Some(command) => Delivery::Command(command),
            None => Delivery::Ignored(event.to_owned()),
        }),
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
        let details = self.pull_request.details(Some(&self.repository));
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
            draft: self.pull_request.draft.unwrap_or(false),
            updated_at: self.pull_request.updated_at(),
            head_sha: self.pull_request.head.sha,
            head_branch: self.pull_request.head.branch,
            base_branch: self.pull_request.base.branch,
            details,
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
        ("ready_for_review", _) => PrAction::ReadyForReview,
        ("converted_to_draft", _) => PrAction::ConvertedToDraft,
        (other, _) => PrAction::Other(short("action", other.to_owned())?),
    })
}
