//! Commands for a preview in comments on its pull request.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{CommitSha, InvalidText, PullRequest, RepoName};

/// The word that a command begins with.
const PREFIX: &str = "/preview ";

/// A command for a preview: `stop`, `start`, `reset-db`, `rebuild` or `approve COMMIT`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum PreviewCommand {
    /// Stop the guest. Its files and its database stay.
    Stop,
    /// Start a stopped or expired preview, or request one for a pull request without a preview.
    Start,
    /// Drop the database, create it again and set the app up again.
    ResetDatabase,
    /// Evaluate, build and set up the commit again.
    Rebuild,
    /// Approve this commit of a fork, and no other.
    Approve(CommitSha),
}

impl PreviewCommand {
    /// Returns the command in a comment: its first line is exactly `/preview VERB`, or `/preview approve COMMIT` with the
    /// full hash. Other comments contain no command.
    #[must_use]
    pub fn in_comment(body: &str) -> Option<Self> {
        let line = body.split('\n').next().unwrap_or_default();
        let line = line.strip_suffix('\r').unwrap_or(line);
        line.strip_prefix(PREFIX)?.parse().ok()
    }
}

impl fmt::Display for PreviewCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stop => f.pad("stop"),
            Self::Start => f.pad("start"),
            Self::ResetDatabase => f.pad("reset-db"),
            Self::Rebuild => f.pad("rebuild"),
            Self::Approve(sha) => write!(f, "approve {sha}"),
        }
    }
}

impl FromStr for PreviewCommand {
    type Err = InvalidText;

    /// Parses a command without its prefix.
    fn from_str(text: &str) -> Result<Self, InvalidText> {
        let sha = text.strip_prefix("approve ");
        Ok(match (text, sha) {
            ("stop", _) => Self::Stop,
            ("start", _) => Self::Start,
            ("reset-db", _) => Self::ResetDatabase,
            ("rebuild", _) => Self::Rebuild,
            (_, sha) => Self::Approve(CommitSha::parse(sha.unwrap_or_default())?),
        })
    }
}

impl TryFrom<String> for PreviewCommand {
    type Error = InvalidText;

    fn try_from(text: String) -> Result<Self, InvalidText> {
        text.parse()
    }
}

impl From<PreviewCommand> for String {
    fn from(command: PreviewCommand) -> Self {
        command.to_string()
    }
}

/// A comment with a command, on an open pull request. Anyone may have written it: the sender's permission must be queried
/// before it is executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CommandEvent {
    /// Id of its delivery (`X-GitHub-Delivery`). Redeliveries have the same id.
    pub delivery: String,
    /// The pull request.
    pub pull_request: PullRequest,
    /// GitHub's id of the repository.
    #[serde(default)]
    pub repo_id: Option<u64>,
    /// GitHub's id of the comment. Webhooks of a repository and of an App deliver the same comment separately.
    pub comment: u64,
    /// The command.
    pub command: PreviewCommand,
    /// Login of the comment's author.
    pub sender: String,
    /// Time of the comment, by GitHub's clock.
    #[serde(default)]
    pub updated_at: Option<Timestamp>,
}

impl CommandEvent {
    /// Returns the event with a new name of the repository.
    #[must_use]
    pub fn with_repo(mut self, repo: RepoName) -> Self {
        self.pull_request.repo = repo;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_is_exactly_the_first_line() {
        let sha = CommitSha::parse(&"1a".repeat(20)).expect("a commit");
        let approve = format!("/preview approve {sha}\nLooks good.");
        for (body, expected) in [
            ("/preview stop", PreviewCommand::Stop),
            (
                "/preview start\r\nIt is needed again.",
                PreviewCommand::Start,
            ),
            ("/preview reset-db\n", PreviewCommand::ResetDatabase),
            ("/preview rebuild\n/preview stop", PreviewCommand::Rebuild),
            (&approve, PreviewCommand::Approve(sha.clone())),
        ] {
            assert_eq!(PreviewCommand::in_comment(body), Some(expected), "{body:?}");
        }
        let short = format!("/preview approve {}", sha.short());
        let more = format!("/preview approve {sha} now");
        for body in [
            "",
            "/preview",
            "/preview ",
            "/preview stop ",
            " /preview stop",
            "\n/preview stop",
            "/preview  stop",
            "/preview\tstop",
            "/preview Stop",
            "/preview stop now",
            "/preview stop\r\r\n",
            "> /preview stop",
            "Please /preview stop",
            "/previews stop",
            "/preview approve",
            "/preview approve HEAD",
            &short,
            &more,
        ] {
            assert_eq!(PreviewCommand::in_comment(body), None, "{body:?}");
        }
    }

    #[test]
    fn command_is_stored_as_written() {
        let sha = CommitSha::parse(&"1a".repeat(20)).expect("a commit");
        for command in [
            PreviewCommand::Stop,
            PreviewCommand::Start,
            PreviewCommand::ResetDatabase,
            PreviewCommand::Rebuild,
            PreviewCommand::Approve(sha),
        ] {
            let json = serde_json::to_string(&command).expect("serializes");
            assert_eq!(json, format!("\"{command}\""));
            let read: PreviewCommand = serde_json::from_str(&json).expect("reads back");
            assert_eq!(read, command);
        }
    }
}
