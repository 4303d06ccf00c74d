//! Reactions to comments.

use hyper::Method;
use innkeeper_model::preview::RepoName;
use serde_json::json;

use super::call::{ApiCall, repo_path};
use super::{Github, GithubError};

/// A reaction to a comment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Thumbs up: the command is executed.
    Accepted,
    /// A confused face: the command cannot be executed.
    Refused,
}

impl Reaction {
    /// Returns GitHub's name of it.
    #[must_use]
    pub fn content(self) -> &'static str {
        match self {
            Self::Accepted => "+1",
            Self::Refused => "confused",
        }
    }
}

impl Github {
    /// Reacts to a comment on a pull request. A reaction that exists is success.
    ///
    /// # Errors
    /// [`GithubError`].
    pub async fn react(
        &self,
        repo: &RepoName,
        comment: u64,
        reaction: Reaction,
    ) -> Result<(), GithubError> {
        let call = ApiCall::with_body(
            Method::POST,
            format!("react to comment {comment} in {repo}"),
            repo_path(repo, &format!("/issues/comments/{comment}/reactions")),
            &json!({ "content": reaction.content() }),
        )?
        // GitHub keeps one reaction of each kind for an account: a repeated call creates no second one.
        .idempotent();
        self.send(&call).await?.success(&call).map(drop)
    }
}
