//! Repositories, permissions of users, and the client's own login.

use innkeeper_model::preview::{BranchName, RepoName};
use serde::Deserialize;

use super::call::{ApiCall, repo_path, segment};
use super::{Credentials, Github, GithubError};
use crate::wire;

/// A user's permission for a repository ("Get repository permissions for a user"). GitHub's `maintain` counts as
/// [`Permission::Write`] and `triage` as [`Permission::Read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    /// No access.
    None,
    /// Read access.
    Read,
    /// Write access.
    Write,
    /// All permissions.
    Admin,
}

impl Permission {
    /// Reports whether it is sufficient for approving commits of forks.
    #[must_use]
    pub fn can_write(self) -> bool {
        self >= Self::Write
    }
}

/// The current state of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoView {
    /// GitHub's id of it, which never changes.
    pub id: Option<u64>,
    /// Its name, which may change.
    pub name: RepoName,
    /// True if it is archived, and so read-only.
    pub archived: bool,
    /// True if it is private. `None` if GitHub does not report it.
    pub private: Option<bool>,
    /// The branch that pull requests have as their base by default. `None` if GitHub does not report it.
    pub default_branch: Option<BranchName>,
}

#[derive(Deserialize)]
struct Collaborator {
    permission: Permission,
}

#[derive(Deserialize)]
struct Installed {
    repositories: Vec<wire::Repository>,
}

#[derive(Deserialize)]
struct AppView {
    slug: String,
}

impl Github {
    /// Returns a user's permission for a repository; [`Permission::None`] for an unknown user.
    ///
    /// # Errors
    /// [`GithubError`]. Callers must fail closed.
    pub async fn permission(
        &self,
        repo: &RepoName,
        login: &str,
    ) -> Result<Permission, GithubError> {
        let below = format!("/collaborators/{}/permission", segment(login));
        let call = ApiCall::get(
            format!("get the permission of '{login}' for {repo}"),
            repo_path(repo, &below),
        );
        let response = self.send(&call).await?;
        if response.is_missing() {
            self.check_repo(repo).await?;
            return Ok(Permission::None);
        }
        let collaborator: Collaborator = response.success(&call)?.json(&call)?;
        Ok(collaborator.permission)
    }

    /// Returns the repositories that the App is installed on. `None` for a token.
    ///
    /// # Errors
    /// [`GithubError`].
    pub async fn installation_repositories(&self) -> Result<Option<Vec<RepoName>>, GithubError> {
        if matches!(self.session().credentials(), Credentials::Token(_)) {
            return Ok(None);
        }
        let call = ApiCall::get(
            "list the repositories of the App's installation",
            "/installation/repositories?per_page=100",
        );
        let names = |page: Installed| {
            page.repositories
                .into_iter()
                .map(|repo| repo.full_name)
                .collect()
        };
        self.list(call, names).await.map(Some)
    }

    /// Returns the login of the client's account, which is the author of its comments. Cached.
    ///
    /// # Errors
    /// [`GithubError`].
    pub async fn login(&self) -> Result<&str, GithubError> {
        self.inner
            .login
            .get_or_try_init(|| self.fetch_login())
            .await
            .map(String::as_str)
    }

    async fn fetch_login(&self) -> Result<String, GithubError> {
        match self.session().credentials() {
            Credentials::Token(_) => {
                let call = ApiCall::get("look up the token's account", "/user");
                let account: wire::Account = self.json(&call).await?;
                Ok(account.login)
            }
            Credentials::App(app) => {
                let call = ApiCall::get("look up the App", "/app");
                let response = self.session().send_as_app(app, &call).await?;
                let app: AppView = response.success(&call)?.json(&call)?;
                Ok(format!("{}[bot]", app.slug))
            }
        }
    }

    /// Returns a repository by name, with its current name. Former names work too, until another repository takes them.
    ///
    /// # Errors
    /// [`GithubError::RepoNotAccessible`] when it does not exist or is not visible.
    pub async fn repo(&self, repo: &RepoName) -> Result<RepoView, GithubError> {
        self.repo_at(repo, repo_path(repo, "")).await
    }

    /// Returns a repository by id. `known_as` names it in errors.
    ///
    /// # Errors
    /// [`GithubError::RepoNotAccessible`] when it does not exist or is not visible.
    pub async fn repo_by_id(&self, id: u64, known_as: &RepoName) -> Result<RepoView, GithubError> {
        self.repo_at(known_as, format!("/repositories/{id}")).await
    }

    async fn repo_at(&self, repo: &RepoName, path: String) -> Result<RepoView, GithubError> {
        let call = ApiCall::get(format!("look up repository {repo}"), path);
        let response = self.send(&call).await?;
        if response.status == hyper::StatusCode::NOT_FOUND {
            return Err(GithubError::RepoNotAccessible(repo.clone()));
        }
        let found: wire::Repository = response.success(&call)?.json(&call)?;
        Ok(RepoView {
            id: found.id(),
            archived: found.archived.unwrap_or(false),
            private: found.is_private(),
            default_branch: found
                .default_branch
                .as_ref()
                .and_then(|name| BranchName::parse(name).ok()),
            name: found.full_name,
        })
    }

    /// Checks that a repository exists and is visible.
    ///
    /// # Errors
    /// [`GithubError::RepoNotAccessible`].
    pub async fn check_repo(&self, repo: &RepoName) -> Result<(), GithubError> {
        self.repo(repo).await.map(drop)
    }
}
