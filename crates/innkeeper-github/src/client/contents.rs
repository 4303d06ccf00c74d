//! Files, branches and commits.

use innkeeper_model::preview::{BranchName, CommitSha, RepoName};
use serde::Deserialize;

use super::call::{Call, repo_path, segment, segments};
use super::{Github, GithubError};

/// A file's bytes as they are ("Get repository content").
const RAW: &str = "application/vnd.github.raw+json";
/// The file in a repository that describes its preview.
pub const PREVIEW_CONFIG: &str = "preview-config.nix";
/// The longest `preview-config.nix`, in bytes.
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
    /// The `preview-config.nix` of a commit, of at most 256 KiB; nothing when the commit has none.
    ///
    /// For a pull request from a fork, ask the repository that it wants to change: GitHub keeps the commit
    /// there too, and the fork may not be accessible.
    ///
    /// # Errors
    /// [`GithubError`]: [`GithubError::CommitNotFound`] and [`GithubError::RepoNotAccessible`] when it is not
    /// the file that is missing.
    pub async fn preview_config(
        &self,
        repo: &RepoName,
        sha: &CommitSha,
    ) -> Result<Option<Vec<u8>>, GithubError> {
        self.file(repo, sha, PREVIEW_CONFIG, MAX_PREVIEW_CONFIG)
            .await
    }

    /// A file of a commit, of at most `limit` bytes; nothing when the commit has no such file.
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
        let call = Call {
            accept: RAW,
            limit,
            ..Call::get(
                format!("read {path} of {repo} at {sha}"),
                repo_path(repo, &below),
            )
        };
        let answer = self.answer(&call).await?;
        if answer.is_missing() {
            // GitHub says the same of a file, a commit and a repository.
            self.check_commit(repo, sha).await?;
            return Ok(None);
        }
        let answer = answer.success(&call)?;
        let kind = answer.header("content-type").unwrap_or_default();
        if kind.starts_with("application/json") {
            return Err(GithubError::NotUnderstood {
                call: call.name,
                source: "it is no file".into(),
            });
        }
        Ok(Some(answer.body.to_vec()))
    }

    /// The commit that a branch is at.
    ///
    /// # Errors
    /// [`GithubError::BranchNotFound`], and [`GithubError::RepoNotAccessible`] when it is the repository that
    /// is missing.
    pub async fn branch(
        &self,
        repo: &RepoName,
        branch: &BranchName,
    ) -> Result<CommitSha, GithubError> {
        let below = format!("/git/ref/heads/{}", segments(branch.as_str()));
        let call = Call::get(
            format!("look up branch '{branch}' of {repo}"),
            repo_path(repo, &below),
        );
        let answer = self.answer(&call).await?;
        if answer.is_missing() {
            self.check_repo(repo).await?;
            return Err(GithubError::BranchNotFound {
                repo: repo.clone(),
                branch: branch.clone(),
            });
        }
        let reference: Reference = answer.success(&call)?.json(&call)?;
        Ok(reference.object.sha)
    }

    /// Makes sure that a commit is there.
    ///
    /// # Errors
    /// [`GithubError::CommitNotFound`], and [`GithubError::RepoNotAccessible`] when it is the repository that
    /// is missing.
    pub async fn check_commit(&self, repo: &RepoName, sha: &CommitSha) -> Result<(), GithubError> {
        let below = format!("/git/commits/{}", segment(sha.as_str()));
        let call = Call::get(
            format!("look up commit {sha} of {repo}"),
            repo_path(repo, &below),
        );
        let answer = self.answer(&call).await?;
        if answer.is_missing() {
            self.check_repo(repo).await?;
            return Err(GithubError::CommitNotFound {
                repo: repo.clone(),
                sha: sha.clone(),
            });
        }
        answer.success(&call).map(drop)
    }
}
