//! Deployments and their statuses, which GitHub shows as environments.

use hyper::Method;
use innkeeper_model::preview::{CommitSha, RepoName};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::call::{ApiCall, repo_path, segment};
use super::{Github, GithubError};

/// Maximum length of a status's description, in characters ("Create a deployment status").
const MAX_DESCRIPTION: usize = 140;

/// A deployment of a commit to an environment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Deployment {
    /// GitHub's id of it. Later ones are higher.
    pub id: u64,
    /// The commit.
    pub sha: CommitSha,
}

/// The state of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentState {
    /// Waits for a person.
    Pending,
    /// Queued.
    Queued,
    /// Being built or started.
    InProgress,
    /// Live.
    Success,
    /// Failed because of the repository.
    Failure,
    /// Failed because of the host.
    Error,
    /// Replaced or removed.
    Inactive,
}

/// A status of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentStatus {
    /// The state.
    pub state: DeploymentState,
    /// One line about it, of at most 140 characters.
    #[serde(default)]
    pub description: String,
    /// URL of the environment; may be empty.
    #[serde(default)]
    pub environment_url: String,
    /// URL of the page with the state and the log; may be empty.
    #[serde(default)]
    pub log_url: String,
}

impl DeploymentStatus {
    /// Creates a status. A description that is too long is truncated. `url` leads to the environment, and to the page with
    /// the state and the log until the environment is live.
    #[must_use]
    pub fn new(state: DeploymentState, description: &str, url: &str) -> Self {
        let mut text: String = description.chars().take(MAX_DESCRIPTION).collect();
        if text.len() < description.len() {
            text.pop();
            text.push('…');
        }
        Self {
            state,
            description: text,
            environment_url: url.to_owned(),
            log_url: url.to_owned(),
        }
    }
}

impl Github {
    /// Returns the newest deployments to an environment, at most `count` (up to 100), the newest first.
    ///
    /// # Errors
    /// [`GithubError`].
    pub async fn deployments(
        &self,
        repo: &RepoName,
        environment: &str,
        count: u8,
    ) -> Result<Vec<Deployment>, GithubError> {
        let below = format!(
            "/deployments?environment={}&per_page={count}",
            segment(environment)
        );
        let call = ApiCall::get(
            format!("list the deployments of {repo} to {environment}"),
            repo_path(repo, &below),
        );
        self.json(&call).await
    }

    /// Creates a deployment of a commit to a transient environment.
    ///
    /// # Errors
    /// [`GithubError`]. The deployment may exist nevertheless: list the deployments before a retry.
    pub async fn create_deployment(
        &self,
        repo: &RepoName,
        environment: &str,
        sha: &CommitSha,
    ) -> Result<Deployment, GithubError> {
        let call = ApiCall::with_body(
            Method::POST,
            format!("create a deployment of {repo} to {environment}"),
            repo_path(repo, "/deployments"),
            &json!({
                "ref": sha,
                "environment": environment,
                "description": "Preview",
                // Exactly this commit, regardless of its checks.
                "auto_merge": false,
                "required_contexts": [],
                "transient_environment": true,
                "production_environment": false,
            }),
        )?;
        self.json(&call).await
    }

    /// Returns the newest status of a deployment.
    ///
    /// # Errors
    /// [`GithubError`].
    pub async fn deployment_status(
        &self,
        repo: &RepoName,
        deployment: u64,
    ) -> Result<Option<DeploymentStatus>, GithubError> {
        let below = format!("/deployments/{deployment}/statuses?per_page=1");
        let call = ApiCall::get(
            format!("look up deployment {deployment} of {repo}"),
            repo_path(repo, &below),
        );
        let newest_first: Vec<DeploymentStatus> = self.json(&call).await?;
        Ok(newest_first.into_iter().next())
    }

    /// Adds a status to a deployment.
    ///
    /// # Errors
    /// [`GithubError`].
    pub async fn set_deployment_status(
        &self,
        repo: &RepoName,
        deployment: u64,
        status: &DeploymentStatus,
    ) -> Result<(), GithubError> {
        let below = format!("/deployments/{deployment}/statuses");
        let call = ApiCall::with_body(
            Method::POST,
            format!("set the status of deployment {deployment} of {repo}"),
            repo_path(repo, &below),
            &json!({
                "state": status.state,
                "description": status.description,
                "environment_url": status.environment_url,
                "log_url": status.log_url,
                // For GitHub and other readers of the API. The caller ends older deployments nevertheless: GitHub does
                // not end those of transient environments.
                "auto_inactive": true,
            }),
        )?;
        let call = call.idempotent();
        self.send(&call).await?.success(&call).map(drop)
    }
}
