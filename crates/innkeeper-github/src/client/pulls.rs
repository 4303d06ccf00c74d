//! Pull requests.

use hyper::Method;
use innkeeper_model::preview::{BranchName, CommitSha, PullRequest, RepoName};
use jiff::Timestamp;
use serde_json::json;

use super::call::{Call, repo_path};
use super::{Github, GithubError};
use crate::wire;

/// A pull request as GitHub has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullRequestView {
    /// Which one.
    pub pull_request: PullRequest,
    /// Whether it is open.
    pub open: bool,
    /// Whether it was merged.
    pub merged: bool,
    /// Whether it is a draft.
    pub draft: bool,
    /// The repository with the commit; none when the fork was deleted.
    pub head_repo: Option<RepoName>,
    /// The commit.
    pub head_sha: CommitSha,
    /// The branch with the commit.
    pub head_branch: BranchName,
    /// The branch that it wants to change.
    pub base_branch: BranchName,
    /// Whether the commit comes from another repository.
    pub is_fork: bool,
    /// Who opened it.
    pub author: String,
    /// Its text.
    pub body: String,
    /// The names of its labels.
    pub labels: Vec<String>,
    /// When it last changed.
    pub updated_at: Option<Timestamp>,
}

impl PullRequestView {
    fn new(repo: &RepoName, wire: wire::PullRequest) -> Self {
        let (is_fork, head_repo) = match &wire.base.repo {
            // By their numbers: `repo` may be a former name.
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
            is_fork,
            author: wire.author(),
            labels: wire.labels(),
            updated_at: wire.updated_at(),
            head_repo,
            head_sha: wire.head.sha,
            head_branch: wire.head.branch,
            base_branch: wire.base.branch,
            body: wire.body.unwrap_or_default(),
        }
    }
}

impl Github {
    /// All open pull requests of a repository.
    ///
    /// # Errors
    /// [`GithubError`]; never a part of the list.
    pub async fn open_pull_requests(
        &self,
        repo: &RepoName,
    ) -> Result<Vec<PullRequestView>, GithubError> {
        let call = Call::get(
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

    /// A pull request, open or not; nothing when the repository has none of this number.
    ///
    /// # Errors
    /// [`GithubError`].
    pub async fn pull_request(
        &self,
        pull_request: &PullRequest,
    ) -> Result<Option<PullRequestView>, GithubError> {
        let repo = &pull_request.repo;
        let below = format!("/pulls/{}", pull_request.number);
        let call = Call::get(
            format!("look up pull request {pull_request}"),
            repo_path(repo, &below),
        );
        let answer = self.answer(&call).await?;
        if answer.is_missing() {
            self.check_repo(repo).await?;
            return Ok(None);
        }
        let wire = answer.success(&call)?.json(&call)?;
        Ok(Some(PullRequestView::new(repo, wire)))
    }

    /// Replaces the text of a pull request.
    ///
    /// # Errors
    /// [`GithubError`].
    pub async fn set_body(
        &self,
        pull_request: &PullRequest,
        body: &str,
    ) -> Result<(), GithubError> {
        let below = format!("/pulls/{}", pull_request.number);
        let call = Call::send(
            Method::PATCH,
            format!("edit the text of {pull_request}"),
            repo_path(&pull_request.repo, &below),
            &json!({ "body": body }),
        )?;
        self.answer(&call).await?.success(&call).map(drop)
    }
}

/// A list of a repository that GitHub does not show us.
fn missing(error: GithubError, repo: &RepoName) -> GithubError {
    match error {
        GithubError::Refused { status: 404, .. } => GithubError::RepoNotAccessible(repo.clone()),
        error => error,
    }
}
