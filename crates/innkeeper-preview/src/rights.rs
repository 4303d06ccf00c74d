//! The rights of people in previews, by their permissions in the preview's repository. Refused when unknown.

use std::collections::BTreeSet;
use std::time::Instant;

use innkeeper_github::client::Permission;
use innkeeper_model::GuestName;
use innkeeper_model::preview::{RepoName, Visibility};

use crate::{PreviewError, Previews, records};

impl Previews {
    /// Reports whether a person may see a preview: a private one only with read access to its repository. True for a name
    /// without a preview.
    ///
    /// # Errors
    /// Only if the store cannot be read.
    pub async fn may_see(&self, slug: &GuestName, login: &str) -> Result<bool, PreviewError> {
        let components = &self.components;
        let Some(preview) = components.store.preview(slug).await? else {
            return Ok(true);
        };
        let report = components.visitors.report(&preview);
        if report.visibility != Visibility::Private {
            return Ok(true);
        }
        let permission = self.permission(&preview.record.repo, login).await;
        Ok(permission.is_some_and(|permission| permission >= Permission::Read))
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

    /// Returns the previews that a person may not see.
    ///
    /// # Errors
    /// Only if the store cannot be read.
    pub async fn hidden_from(&self, login: &str) -> Result<BTreeSet<GuestName>, PreviewError> {
        let mut hidden = BTreeSet::new();
        for preview in self.components.store.previews().await? {
            let slug = preview.record.slug;
            if !self.may_see(&slug, login).await? {
                hidden.insert(slug);
            }
        }
        Ok(hidden)
    }

    async fn permission(&self, repo: &RepoName, login: &str) -> Option<Permission> {
        let github = self.components.github.as_ref()?;
        let query = github.permission(repo, login);
        let permissions = &self.components.permissions;
        permissions.get(repo, login, Instant::now(), query).await
    }
}
