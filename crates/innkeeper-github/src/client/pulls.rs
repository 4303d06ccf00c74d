//! Pull requests.

use hyper::Method;
use innkeeper_model::preview::{BranchName, CommitSha, PullDetails, PullRequest, RepoName};
use jiff::Timestamp;
use serde_json::json;

use super::call::{ApiCall, repo_path};
use super::{Github, GithubError};
use crate::wire;

/// The current state of a pull request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullRequestView {
    /// The pull request.
    pub pull_request: PullRequest,
    /// True if it is open.
    pub open: bool,
    /// True if it was merged.
    pub merged: bool,
    /// True if it is a draft.
    pub draft: bool,
    /// True if its conversation is locked.
    pub locked: bool,
    /// The head repository; `None` when the fork was deleted.
    pub head_repo: Option<RepoName>,
    /// The head commit.
    pub head_sha: CommitSha,
    /// The head branch.
    pub head_branch: BranchName,
    /// The base branch.
    pub base_branch: BranchName,
    /// True if the head repository is not the base repository.
    pub is_fork: bool,
    /// Login of its author.
    pub author: String,
    /// Its text.
    pub body: String,
    /// The names of its labels.
    pub labels: Vec<String>,
    /// Time of its last change.
    pub updated_at: Option<Timestamp>,
    /// Its title and author, and whether the repository is private.
    pub details: PullDetails,
}

impl PullRequestView {
    fn new(repo: &RepoName, wire: wire::PullRequest) -> Self {
        let (is_fork, head_repo) = match &wire.base.repo {
            // Compares their ids: `repo` may be a former name.
            Some(base) => wire.head_of(base),
            None => (true, None),
        };
        let head_repo = if is_fork {
            head_repo.filter(|head| head != repo)
        } else {
            Some(repo.clone())
        };
        Self {
            pull_request: PullRequest {
                repo: repo.clone(),
                number: wire.number,
            },
            open: wire.state == "open",
            merged: wire.is_merged(),
            draft: wire.draft.unwrap_or(false),
            locked: wire.locked.unwrap_or(false),
            is_fork,
            author: wire.author(),
            labels: wire.labels(),
            updated_at: wire.updated_at(),
            details: wire.details(wire.base.repo.as_ref()),
            head_repo,
            head_sha: wire.head.sha,
            head_branch: wire.head.branch,
            base_branch: wire.base.branch,
            body: wire.body.unwrap_or_default(),
        }
    }
}

impl Github {
    /// Returns all open pull requests of a repository.
    ///
    /// # Errors
    /// [`GithubError`], rather than an incomplete list.
    pub async fn open_pull_requests(
        &self,
        repo: &RepoName,
    ) -> Result<Vec<PullRequestView>, GithubError> {
        let call = ApiCall::get(
            format!("list the open pull requests of {repo}"),
            repo_path(repo, "/pulls?state=open&per_page=100"),
        );
        let view = |page: Vec<wire::PullRequest>| {
            page.into_iter()
                .map(|wire| PullRequestView::new(repo, wire))
                .collect()
        };
        self.list(call, view)
            .await
            .map_err(|error| missing(error, repo))
    }

    /// Returns a pull request, open or closed. `None` if the repository has none with this number.
    ///
    /// # Errors
    /// [`GithubError`].
    pub async fn pull_request(
        &self,
        pull_request: &PullRequest,
    ) -> Result<Option<PullRequestView>, GithubError> {
        let repo = &pull_request.repo;
        let below = format!("/pulls/{}", pull_request.number);
        let call = ApiCall::get(
            format!("look up pull request {pull_request}"),
            repo_path(repo, &below),
        );
        let response = self.send(&call).await?;
        if response.is_missing() {
            self.check_repo(repo).await?;
            return Ok(None);
        }
        let wire = response.success(&call)?.json(&call)?;
        Ok(Some(PullRequestView::new(repo, wire)))
    }

    /// Replaces a pull request's text.
    ///
    /// # Errors
    /// [`GithubError`].
    pub async fn set_body(
        &self,
        pull_request: &PullRequest,
        body: &str,
    ) -> Result<(), GithubError> {
        let below = format!("/pulls/{}", pull_request.number);
        let call = ApiCall::with_body(
            Method::PATCH,
            format!("edit the text of {pull_request}"),
            repo_path(&pull_request.repo, &below),
            &json!({ "body": body }),
        )?;
        self.send(&call).await?.success(&call).map(drop)
    }
}

/// Converts the error of a list in a repository that is not visible.
fn missing(error: GithubError, repo: &RepoName) -> GithubError {
    match error {
        GithubError::Refused { status: 404, .. } => GithubError::RepoNotAccessible(repo.clone()),
        error => error,
    }
}
