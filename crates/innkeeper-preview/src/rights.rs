//! The rights of people in previews, by their permissions in the preview's repository. Refused when unknown.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use futures_util::future::join_all;
use innkeeper_github::client::Permission;
use innkeeper_model::GuestName;
use innkeeper_model::preview::{RepoName, Visibility};
use innkeeper_store::Preview;

use crate::{PreviewError, Previews, records};

impl Previews {
    /// Reports whether a person may see a preview in the API: one that is private, or whose repository is not known to be
    /// public, only with read access to the repository. False for a name without a preview.
    ///
    /// # Errors
    /// Only if the store cannot be read.
    pub async fn may_see(&self, slug: &GuestName, login: &str) -> Result<bool, PreviewError> {
        match self.components.store.preview(slug).await? {
            Some(preview) if !self.is_open(&preview) => {
                Ok(self.may_read(&preview.record.repo, login).await)
            }
            found => Ok(found.is_some()),
        }
    }

    /// Reports whether a person may visit the URL of a preview that is for the team or private: a private one only with read
    /// access to its repository. False for a name without a preview.
    ///
    /// # Errors
    /// Only if the store cannot be read.
    pub async fn may_visit(&self, slug: &GuestName, login: &str) -> Result<bool, PreviewError> {
        match self.components.store.preview(slug).await? {
            Some(preview) if self.visibility_of(&preview) == Visibility::Private => {
                Ok(self.may_read(&preview.record.repo, login).await)
            }
            found => Ok(found.is_some()),
        }
    }

    /// Reports whether a person may write to the repository of a preview.
    ///
    /// # Errors
    /// [`PreviewError::NotFound`], or the store cannot be read.
    pub async fn may_write(&self, slug: &GuestName, login: &str) -> Result<bool, PreviewError> {
        let preview = records::require(&self.components.store, slug).await?;
        let permission = self.permission(&preview.record.repo, login).await;
        Ok(permission.is_some_and(Permission::can_write))
    }

    /// Reports whether a person may read a repository.
    pub async fn may_read(&self, repo: &RepoName, login: &str) -> bool {
        let permission = self.permission(repo, login).await;
        permission.is_some_and(|permission| permission >= Permission::Read)
    }

    /// Reports whether a person may read a repository, or everybody may.
    pub async fn may_read_or_all(&self, repo: &RepoName, login: &str) -> bool {
        if self.may_read(repo, login).await {
            return true;
        }
        let Some(github) = self.components.github.as_ref() else {
            return false;
        };
        let found = github.repo(repo).await;
        found.is_ok_and(|found| found.private == Some(false))
    }

    /// Returns the previews that a person may not see.
    ///
    /// # Errors
    /// Only if the store cannot be read.
    pub async fn hidden_from(&self, login: &str) -> Result<BTreeSet<GuestName>, PreviewError> {
        let mut closed: BTreeMap<RepoName, Vec<GuestName>> = BTreeMap::new();
        for preview in self.components.store.previews().await? {
            if !self.is_open(&preview) {
                let record = preview.record;
                closed.entry(record.repo).or_default().push(record.slug);
            }
        }
        let hidden = join_all(closed.into_iter().map(async |(repo, slugs)| {
            match self.may_read(&repo, login).await {
                true => Vec::new(),
                false => slugs,
            }
        }));
        Ok(hidden.await.into_iter().flatten().collect())
    }

    /// Reports whether every person with a role may see the preview in the API.
    fn is_open(&self, preview: &Preview) -> bool {
        self.visibility_of(preview) != Visibility::Private && preview.details.is_public()
    }

    fn visibility_of(&self, preview: &Preview) -> Visibility {
        self.components.visitors.report(preview).visibility
    }

    async fn permission(&self, repo: &RepoName, login: &str) -> Option<Permission> {
        let github = self.components.github.as_ref()?;
        let query = github.permission(repo, login);
        let permissions = &self.components.permissions;
        permissions.get(repo, login, Instant::now(), query).await
    }
}
