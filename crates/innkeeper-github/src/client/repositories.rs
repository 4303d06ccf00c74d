//! Repositories, who may write to them, and who we are.

use innkeeper_model::preview::RepoName;
use serde::Deserialize;

use super::call::{Call, repo_path, segment};
use super::{Credentials, Github, GithubError};
use crate::wire;

/// What somebody may do with a repository ("Get repository permissions for a user"). GitHub's `maintain`
/// counts as [`Permission::Write`] and `triage` as [`Permission::Read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    /// Nothing.
    None,
    /// Look at it.
    Read,
    /// Change it.
    Write,
    /// Everything.
    Admin,
}

impl Permission {
    /// Whether it is enough to approve what a fork wants to run.
    #[must_use]
    pub fn can_write(self) -> bool {
        self >= Self::Write
    }
}

/// A repository as GitHub has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoView {
    /// GitHub's number of it, which it keeps.
    pub id: Option<u64>,
    /// Its name, which may change.
    pub name: RepoName,
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
    /// What a person may do with a repository. Somebody whom GitHub does not know there may do nothing.
    ///
    /// # Errors
    /// [`GithubError`]; treat it as no permission.
    pub async fn permission(
        &self,
        repo: &RepoName,
        login: &str,
    ) -> Result<Permission, GithubError> {
        let below = format!("/collaborators/{}/permission", segment(login));
        let call = Call::get(
            format!("ask what '{login}' may do with {repo}"),
            repo_path(repo, &below),
        );
        let answer = self.answer(&call).await?;
        if answer.is_missing() {
            self.check_repo(repo).await?;
            return Ok(Permission::None);
        }
        let collaborator: Collaborator = answer.success(&call)?.json(&call)?;
        Ok(collaborator.permission)
    }

    /// The repositories that the App is installed on; nothing for a token, which is not installed anywhere.
    ///
    /// # Errors
    /// [`GithubError`].
    pub async fn installation_repositories(&self) -> Result<Option<Vec<RepoName>>, GithubError> {
        if matches!(self.session().credentials(), Credentials::Token(_)) {
            return Ok(None);
        }
        let call = Call::get(
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

    /// The login under which our comments appear. Asked once.
    ///
    /// # Errors
    /// [`GithubError`].
    pub async fn login(&self) -> Result<&str, GithubError> {
        self.inner
            .login
            .get_or_try_init(|| self.ask_login())
            .await
            .map(String::as_str)
    }

    async fn ask_login(&self) -> Result<String, GithubError> {
        match self.session().credentials() {
            Credentials::Token(_) => {
                let call = Call::get("ask GitHub whose token this is", "/user");
                let account: wire::Account = self.json(&call).await?;
                Ok(account.login)
            }
            Credentials::App(app) => {
                let call = Call::get("ask GitHub which App this is", "/app");
                let answer = self.session().send_as_app(app, &call).await?;
                let app: AppView = answer.success(&call)?.json(&call)?;
                Ok(format!("{}[bot]", app.slug))
            }
        }
    }

    /// The repository that a name stands for, with the name that it has now. GitHub knows it by its former names too,
    /// until somebody else takes them.
    ///
    /// # Errors
    /// [`GithubError::RepoNotAccessible`] when it is not there or we cannot see it.
    pub async fn repo(&self, repo: &RepoName) -> Result<RepoView, GithubError> {
        self.repo_at(repo, repo_path(repo, "")).await
    }

    /// The repository with a number; `known_as` names it in errors.
    ///
    /// # Errors
    /// [`GithubError::RepoNotAccessible`] when it is not there or we cannot see it.
    pub async fn repo_by_id(&self, id: u64, known_as: &RepoName) -> Result<RepoView, GithubError> {
        self.repo_at(known_as, format!("/repositories/{id}")).await
    }

    async fn repo_at(&self, repo: &RepoName, path: String) -> Result<RepoView, GithubError> {
        let call = Call::get(format!("look up repository {repo}"), path);
        let answer = self.answer(&call).await?;
        if answer.status == hyper::StatusCode::NOT_FOUND {
            return Err(GithubError::RepoNotAccessible(repo.clone()));
        }
        let there: wire::Repository = answer.success(&call)?.json(&call)?;
        Ok(RepoView {
            id: there.id(),
            name: there.full_name,
        })
    }

    /// Makes sure that a repository is there and that we can see it.
    ///
    /// # Errors
    /// [`GithubError::RepoNotAccessible`] when it is not.
    pub async fn check_repo(&self, repo: &RepoName) -> Result<(), GithubError> {
        self.repo(repo).await.map(drop)
    }
}
