//! Comments on pull requests.

use hyper::{Method, StatusCode};
use innkeeper_model::preview::{PullRequest, RepoName};
use serde::Deserialize;
use serde_json::json;

use super::call::{ApiCall, repo_path};
use super::{Github, GithubError};
use crate::wire;

/// A comment by Innkeeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment {
    /// GitHub's id of it.
    pub id: u64,
    /// Its text.
    pub body: String,
}

/// A comment as GitHub shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownComment {
    /// Login of its author, unless the account is gone.
    pub author: Option<String>,
    /// Its text.
    pub body: String,
    /// The number of its issue or pull request.
    pub number: Option<u64>,
}

#[derive(Deserialize)]
struct CommentView {
    id: u64,
    user: Option<wire::Account>,
    body: Option<String>,
    #[serde(default)]
    issue_url: String,
}

impl Github {
    /// Returns Innkeeper's comments on a pull request that start with `marker`, the oldest first. Comments by other
    /// accounts are never included, even if they start with the marker.
    ///
    /// # Errors
    /// [`GithubError`].
    pub async fn own_comments(
        &self,
        pull_request: &PullRequest,
        marker: &str,
    ) -> Result<Vec<Comment>, GithubError> {
        let login = self.login().await?;
        let below = format!("/issues/{}/comments?per_page=100", pull_request.number);
        let call = ApiCall::get(
            format!("list the comments on {pull_request}"),
            repo_path(&pull_request.repo, &below),
        );
        let own = |page: Vec<CommentView>| {
            let comments = page.into_iter().filter_map(|comment| {
                let author = comment.user?.login;
                let body = comment.body.unwrap_or_default();
                let is_own = author.eq_ignore_ascii_case(login) && body.starts_with(marker);
                is_own.then_some(Comment {
                    id: comment.id,
                    body,
                })
            });
            comments.collect()
        };
        let mut comments: Vec<Comment> = self.list(call, own).await?;
        comments.sort_by_key(|comment| comment.id);
        Ok(comments)
    }

    /// Returns a comment. `None` if GitHub shows none with this id.
    ///
    /// # Errors
    /// [`GithubError`].
    pub async fn comment(
        &self,
        repo: &RepoName,
        id: u64,
    ) -> Result<Option<ShownComment>, GithubError> {
        let call = ApiCall::get(
            format!("read comment {id} in {repo}"),
            repo_path(repo, &format!("/issues/comments/{id}")),
        );
        let response = self.send(&call).await?;
        if matches!(response.status, StatusCode::NOT_FOUND | StatusCode::GONE) {
            return Ok(None);
        }
        let comment: CommentView = response.success(&call)?.json(&call)?;
        let number = comment.issue_url.rsplit('/').next();
        Ok(Some(ShownComment {
            author: comment.user.map(|user| user.login),
            body: comment.body.unwrap_or_default(),
            number: number.and_then(|number| number.parse().ok()),
        }))
    }

    /// Creates a comment.
    ///
    /// # Errors
    /// [`GithubError`]. The comment may exist nevertheless: list the comments before a retry.
    pub async fn create_comment(
        &self,
        pull_request: &PullRequest,
        body: &str,
    ) -> Result<Comment, GithubError> {
        let below = format!("/issues/{}/comments", pull_request.number);
        let call = ApiCall::with_body(
            Method::POST,
            format!("comment on {pull_request}"),
            repo_path(&pull_request.repo, &below),
            &json!({ "body": body }),
        )?;
        let comment: CommentView = self.json(&call).await?;
        Ok(Comment {
            id: comment.id,
            body: comment.body.unwrap_or_default(),
        })
    }

    /// Replaces a comment's text.
    ///
    /// # Errors
    /// [`GithubError`].
    pub async fn update_comment(
        &self,
        repo: &RepoName,
        id: u64,
        body: &str,
    ) -> Result<(), GithubError> {
        let call = ApiCall::with_body(
            Method::PATCH,
            format!("edit comment {id} in {repo}"),
            repo_path(repo, &format!("/issues/comments/{id}")),
            &json!({ "body": body }),
        )?;
        self.send(&call).await?.success(&call).map(drop)
    }

    /// Deletes a comment. A comment that no longer exists is success.
    ///
    /// # Errors
    /// [`GithubError`].
    pub async fn delete_comment(&self, repo: &RepoName, id: u64) -> Result<(), GithubError> {
        let call = ApiCall {
            method: Method::DELETE,
            ..ApiCall::get(
                format!("delete comment {id} in {repo}"),
                repo_path(repo, &format!("/issues/comments/{id}")),
            )
        };
        let response = self.send(&call).await?;
        if matches!(response.status, StatusCode::NOT_FOUND | StatusCode::GONE) {
            return Ok(());
        }
        response.success(&call).map(drop)
    }
}
