//! Deployments and their statuses: what GitHub shows as environments.

use hyper::Method;
use innkeeper_model::preview::{CommitSha, RepoName};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::call::{Call, repo_path, segment};
use super::{Github, GithubError};

/// The most characters of a status's description ("Create a deployment status").
const MAX_DESCRIPTION: usize = 140;

/// A deployment of a commit to an environment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Deployment {
    /// GitHub's number for it. Later ones are higher.
    pub id: u64,
    /// The commit.
    pub sha: CommitSha,
}

/// How far a deployment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentState {
    /// It waits for something that somebody has to do.
    Pending,
    /// It waits for its turn.
    Queued,
    /// It is being built or started.
    InProgress,
    /// It runs.
    Success,
    /// The repository is at fault.
    Failure,
    /// The host is at fault.
    Error,
    /// It was replaced or removed.
    Inactive,
}

/// The newest word about a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentStatus {
    /// How far it is.
    pub state: DeploymentState,
    /// One line about it, of at most 140 characters.
    #[serde(default)]
    pub description: String,
    /// Where it can be seen; empty when nowhere.
    #[serde(default)]
    pub environment_url: String,
}

impl DeploymentStatus {
    /// A status; a longer description is cut.
    #[must_use]
    pub fn new(state: DeploymentState, description: &str, environment_url: &str) -> Self {
        let mut text: String = description.chars().take(MAX_DESCRIPTION).collect();
        if text.len() < description.len() {
            text.pop();
            text.push('…');
        }
        Self {
            state,
            description: text,
            environment_url: environment_url.to_owned(),
        }
    }
}

impl Github {
    /// The newest deployments to an environment, at most `count` (up to 100) of them, the newest first.
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
        let call = Call::get(
            format!("list the deployments of {repo} to {environment}"),
            repo_path(repo, &below),
        );
        self.json(&call).await
    }

    /// Makes a deployment of a commit to an environment that exists for a while only.
    ///
    /// # Errors
    /// [`GithubError`]. When it is not known whether it was made, look before trying again.
    pub async fn create_deployment(
        &self,
        repo: &RepoName,
        environment: &str,
        sha: &CommitSha,
    ) -> Result<Deployment, GithubError> {
        let call = Call::send(
            Method::POST,
            format!("make a deployment of {repo} to {environment}"),
            repo_path(repo, "/deployments"),
            &json!({
                "ref": sha,
                "environment": environment,
                "description": "Preview",
                // Exactly this commit, whatever its checks say.
                "auto_merge": false,
                "required_contexts": [],
                "transient_environment": true,
                "production_environment": false,
            }),
        )?;
        self.json(&call).await
    }

    /// The newest status of a deployment.
    ///
    /// # Errors
    /// [`GithubError`].
    pub async fn deployment_status(
        &self,
        repo: &RepoName,
        deployment: u64,
    ) -> Result<Option<DeploymentStatus>, GithubError> {
        let below = format!("/deployments/{deployment}/statuses?per_page=1");
        let call = Call::get(
            format!("look up deployment {deployment} of {repo}"),
            repo_path(repo, &below),
        );
        let newest_first: Vec<DeploymentStatus> = self.json(&call).await?;
        Ok(newest_first.into_iter().next())
    }

    /// Gives a deployment a new status.
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
        let call = Call::send(
            Method::POST,
            format!("set the status of deployment {deployment} of {repo}"),
            repo_path(repo, &below),
            &json!({
                "state": status.state,
                "description": status.description,
                "environment_url": status.environment_url,
                // Older deployments are ours to end: GitHub leaves those of transient environments alone.
                "auto_inactive": false,
            }),
        )?;
        // The same status twice says the same.
        let call = call.repeatable();
        self.answer(&call).await?.success(&call).map(drop)
    }
}
