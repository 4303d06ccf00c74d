//! Files, branches and commits of repositories.

use innkeeper_model::preview::{BranchName, CommitSha, RepoName};
use serde::Deserialize;

use super::call::{ApiCall, repo_path, segment, segments};
use super::{Github, GithubError};

/// The media type for a file's raw bytes ("Get repository content").
pub(super) const RAW: &str = "application/vnd.github.raw+json";
/// The file in a repository that configures its preview.
pub const PREVIEW_CONFIG: &str = "preview-config.nix";
/// Maximum length of `preview-config.nix`, in bytes.
const MAX_PREVIEW_CONFIG: usize = 256 * 1024;

#[derive(Deserialize)]
struct Reference {
    object: Object,
}

#[derive(Deserialize)]
struct Object {
    sha: CommitSha,
}

impl Github {
    /// Returns the `preview-config.nix` of a commit, of at most 256 KiB. `None` if the commit has none.
    ///
    /// For a pull request from a fork, pass the base repository: it has the commit too, and the fork may not be
    /// accessible.
    ///
    /// # Errors
    /// [`GithubError`]; [`GithubError::CommitNotFound`] or [`GithubError::RepoNotAccessible`] when the commit or the
    /// repository is missing.
    pub async fn preview_config(
        &self,
        repo: &RepoName,
        sha: &CommitSha,
    ) -> Result<Option<Vec<u8>>, GithubError> {
        self.file(repo, sha, PREVIEW_CONFIG, MAX_PREVIEW_CONFIG)
            .await
    }

    /// Returns a file of a commit, of at most `limit` bytes. `None` if the commit has no such file.
    ///
    /// # Errors
    /// As for [`Github::preview_config`].
    pub async fn file(
        &self,
        repo: &RepoName,
        sha: &CommitSha,
        path: &str,
        limit: usize,
    ) -> Result<Option<Vec<u8>>, GithubError> {
        let below = format!("/contents/{}?ref={sha}", segments(path));
        let call = ApiCall {
            accept: RAW,
            limit,
            ..ApiCall::get(
                format!("read {path} of {repo} at {sha}"),
                repo_path(repo, &below),
            )
        };
        let response = self.send(&call).await?;
        if response.is_missing() {
            // GitHub's response is the same for a missing file, commit and repository.
            self.check_commit(repo, sha).await?;
            return Ok(None);
        }
        let response = response.success(&call)?;
        let kind = response.header("content-type").unwrap_or_default();
        if kind.starts_with("application/json") {
            return Err(GithubError::InvalidResponse {
                call: call.name,
                source: "it is not a file".into(),
            });
        }
        Ok(Some(response.body.to_vec()))
    }

    /// Returns the head commit of a branch.
    ///
    /// # Errors
    /// [`GithubError::BranchNotFound`], or [`GithubError::RepoNotAccessible`] when the repository is missing.
    pub async fn branch(
        &self,
        repo: &RepoName,
        branch: &BranchName,
    ) -> Result<CommitSha, GithubError> {
        let below = format!("/git/ref/heads/{}", segments(branch.as_str()));
        let call = ApiCall::get(
            format!("look up branch '{branch}' of {repo}"),
            repo_path(repo, &below),
        );
        let response = self.send(&call).await?;
        if response.is_missing() {
            self.check_repo(repo).await?;
            return Err(GithubError::BranchNotFound {
                repo: repo.clone(),
                branch: branch.clone(),
            });
        }
        let reference: Reference = response.success(&call)?.json(&call)?;
        Ok(reference.object.sha)
    }

    /// Checks that a commit exists.
    ///
    /// # Errors
    /// [`GithubError::CommitNotFound`], or [`GithubError::RepoNotAccessible`] when the repository is missing.
    pub async fn check_commit(&self, repo: &RepoName, sha: &CommitSha) -> Result<(), GithubError> {
        let below = format!("/git/commits/{}", segment(sha.as_str()));
        let call = ApiCall::get(
            format!("look up commit {sha} of {repo}"),
            repo_path(repo, &below),
        );
        let response = self.send(&call).await?;
        if response.is_missing() {
            self.check_repo(repo).await?;
            return Err(GithubError::CommitNotFound {
                repo: repo.clone(),
                sha: sha.clone(),
            });
        }
        response.success(&call).map(drop)
    }
}
