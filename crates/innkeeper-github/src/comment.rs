//! Comments on pull requests (GitHub's event `issue_comment`), of which only those with a command are read.

use innkeeper_model::preview::{CommandEvent, PreviewCommand, PullRequest};
use serde::Deserialize;
use serde_json::Value;

use crate::event_error::{EventError, short};
use crate::wire;

/// GitHub's type of people's accounts. Others are bots and organizations.
const PERSON: &str = "User";

#[derive(Deserialize)]
struct Payload {
    issue: Issue,
    comment: Comment,
    repository: wire::Repository,
    sender: wire::Account,
}

#[derive(Deserialize)]
struct Issue {
    number: u64,
}

#[derive(Deserialize)]
struct Comment {
    id: u64,
    user: wire::Account,
    #[serde(default)]
    created_at: Value,
}

/// Parses an `issue_comment` payload. Returns `None` unless a person has written a command, in a new comment on an open pull
/// request.
///
/// # Errors
/// [`EventError`] for a comment with a command whose other fields are missing or invalid.
pub(crate) fn parse(delivery: &str, body: &[u8]) -> Result<Option<CommandEvent>, EventError> {
    let payload: Value = serde_json::from_slice(body).unwrap_or_default();
    let Some(command) = command(&payload) else {
        return Ok(None);
    };
    let payload: Payload =
        serde_json::from_value(payload).map_err(|source| EventError::Payload {
            event: "issue_comment".to_owned(),
            source,
        })?;
    let sender = payload.sender.login;
    if sender != payload.comment.user.login {
        return Ok(None);
    }
    let created_at = payload.comment.created_at.as_str();
    Ok(Some(CommandEvent {
        delivery: short("id", delivery.to_owned())?,
        pull_request: PullRequest {
            number: payload.issue.number,
            repo: payload.repository.full_name.clone(),
        },
        repo_id: payload.repository.id(),
        comment: payload.comment.id,
        command,
        sender: short("sender", sender)?,
        updated_at: created_at.and_then(|time| time.parse().ok()),
    }))
}

/// Returns the command, if the comment may have one.
fn command(payload: &Value) -> Option<PreviewCommand> {
    let (issue, comment) = (&payload["issue"], &payload["comment"]);
    let is_new = payload["action"] == "created";
    let is_open_pull_request = issue["pull_request"].is_object() && issue["state"] == "open";
    let is_person = |account: &Value| {
        let login = account["login"].as_str().unwrap_or_default();
        account["type"] == PERSON && !login.ends_with("[bot]")
    };
    // An App that posts in a person's name is a bot, too.
    let by_person = is_person(&comment["user"])
        && is_person(&payload["sender"])
        && comment["performed_via_github_app"].is_null();
    if !(is_new && is_open_pull_request && by_person) {
        return None;
    }
    PreviewCommand::in_comment(comment["body"].as_str()?)
}
