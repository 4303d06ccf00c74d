//! The event of a delivery that is recorded.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{CommandEvent, PullRequest, PullRequestEvent, RepoName};

/// The event of a delivery that concerns a pull request. In JSON, the fields of the event, without a name of the variant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum DeliveryEvent {
    /// GitHub's event `pull_request`.
    PullRequest(Box<PullRequestEvent>),
    /// GitHub's event `issue_comment`: a comment with a command.
    Command(Box<CommandEvent>),
}

impl DeliveryEvent {
    /// Returns the delivery's id (`X-GitHub-Delivery`).
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::PullRequest(event) => &event.delivery,
            Self::Command(event) => &event.delivery,
        }
    }

    /// Returns GitHub's name of the event.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::PullRequest(_) => "pull_request",
            Self::Command(_) => "issue_comment",
        }
    }

    /// Returns the action as shown: that of the pull request, such as `opened`, or the command, such as `/preview stop`.
    #[must_use]
    pub fn action(&self) -> String {
        match self {
            Self::PullRequest(event) => event.action.to_string(),
            Self::Command(event) => format!("/preview {}", event.command),
        }
    }

    /// Returns the pull request.
    #[must_use]
    pub fn pull_request(&self) -> &PullRequest {
        match self {
            Self::PullRequest(event) => &event.pull_request,
            Self::Command(event) => &event.pull_request,
        }
    }

    /// Returns GitHub's id of the repository.
    #[must_use]
    pub fn repo_id(&self) -> Option<u64> {
        match self {
            Self::PullRequest(event) => event.repo_id,
            Self::Command(event) => event.repo_id,
        }
    }

    /// Returns the approximate time of the event, by GitHub's clock.
    #[must_use]
    pub fn updated_at(&self) -> Option<Timestamp> {
        match self {
            Self::PullRequest(event) => event.updated_at,
            Self::Command(event) => event.updated_at,
        }
    }

    /// Returns the event of a pull request, unless this is a command.
    #[must_use]
    pub fn as_pull_request(&self) -> Option<&PullRequestEvent> {
        match self {
            Self::PullRequest(event) => Some(event),
            Self::Command(_) => None,
        }
    }

    /// Returns the command, if it is one.
    #[must_use]
    pub fn as_command(&self) -> Option<&CommandEvent> {
        match self {
            Self::PullRequest(_) => None,
            Self::Command(event) => Some(event),
        }
    }

    /// Returns the event with a new name of the repository.
    #[must_use]
    pub fn with_repo(self, repo: RepoName) -> Self {
        match self {
            Self::PullRequest(event) => Self::PullRequest(Box::new(event.with_repo(repo))),
            Self::Command(event) => Self::Command(Box::new(event.with_repo(repo))),
        }
    }
}

impl From<PullRequestEvent> for DeliveryEvent {
    fn from(event: PullRequestEvent) -> Self {
        Self::PullRequest(Box::new(event))
    }
}

impl From<CommandEvent> for DeliveryEvent {
    fn from(event: CommandEvent) -> Self {
        Self::Command(Box::new(event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delivery_event_is_told_by_its_fields() {
        let opened = serde_json::json!({
            "delivery": "d",
            "action": "opened",
            "pull_request": { "repo": "octo/web", "number": 7 },
            "head_repo": null,
            "head_sha": "0123456789abcdef0123456789abcdef01234567",
            "head_branch": "topic",
            "base_branch": "main",
            "is_fork": true,
            "author": "alice",
            "sender": "alice",
        });
        let stop = serde_json::json!({
            "delivery": "d",
            "pull_request": { "repo": "octo/web", "number": 7 },
            "comment": 12,
            "command": "stop",
            "sender": "alice",
        });
        for (json, name, action) in [
            (opened, "pull_request", "opened"),
            (stop, "issue_comment", "/preview stop"),
        ] {
            let event: DeliveryEvent = serde_json::from_value(json).expect("an event");
            assert_eq!((event.name(), event.action().as_str()), (name, action));
            let written = serde_json::to_string(&event).expect("serializes");
            let read: DeliveryEvent = serde_json::from_str(&written).expect("reads back");
            assert_eq!(read, event);
        }
    }
}
