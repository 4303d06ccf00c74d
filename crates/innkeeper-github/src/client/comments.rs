//! Comments on pull requests.

use hyper::{Method, StatusCode};
use innkeeper_model::preview::{PullRequest, RepoName};
use serde::Deserialize;
use serde_json::json;

use super::call::{Call, repo_path};
use super::{Github, GithubError};
use crate::wire;

/// A comment of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment {
    /// GitHub's number for it.
    pub id: u64,
    /// Its text.
    pub body: String,
}

#[derive(Deserialize)]
struct CommentView {
    id: u64,
    user: Option<wire::Account>,
    body: Option<String>,
}

impl Github {
    /// Our own comments on a pull request that start with `marker`, the oldest first. A comment of anybody
    /// else is never among them, whatever it says.
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
        let call = Call::get(
            format!("list the comments on {pull_request}"),
            repo_path(&pull_request.repo, &below),
        );
        let own = |page: Vec<CommentView>| {
            let comments = page.into_iter().filter_map(|comment| {
                let author = comment.user?.login;
                let body = comment.body.unwrap_or_default();
                let ours = author.eq_ignore_ascii_case(login) && body.starts_with(marker);
                ours.then_some(Comment {
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

    /// Writes a new comment.
    ///
    /// # Errors
    /// [`GithubError`]. When it is not known whether the comment was written, look before trying again.
    pub async fn create_comment(
        &self,
        pull_request: &PullRequest,
        body: &str,
    ) -> Result<Comment, GithubError> {
        let below = format!("/issues/{}/comments", pull_request.number);
        let call = Call::send(
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

    /// Replaces the text of a comment.
    ///
    /// # Errors
    /// [`GithubError`].
    pub async fn update_comment(
        &self,
        repo: &RepoName,
        id: u64,
        body: &str,
    ) -> Result<(), GithubError> {
        let call = Call::send(
            Method::PATCH,
            format!("edit comment {id} in {repo}"),
            repo_path(repo, &format!("/issues/comments/{id}")),
            &json!({ "body": body }),
        )?;
        self.answer(&call).await?.success(&call).map(drop)
    }

    /// Deletes a comment; that it is gone already is success.
    ///
    /// # Errors
    /// [`GithubError`].
    pub async fn delete_comment(&self, repo: &RepoName, id: u64) -> Result<(), GithubError> {
        let call = Call {
            method: Method::DELETE,
            ..Call::get(
                format!("delete comment {id} in {repo}"),
                repo_path(repo, &format!("/issues/comments/{id}")),
            )
        };
        let answer = self.answer(&call).await?;
        if matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::GONE) {
            return Ok(());
        }
        answer.success(&call).map(drop)
    }
}
