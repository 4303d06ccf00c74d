//! Branches of previews without a pull request: a preview whose branch is gone is reported, and removed after a grace
//! period unless the branch returns.

use innkeeper_github::client::{Github, GithubError};
use innkeeper_model::{Explain as _, chain};
use innkeeper_store::{Presence, Preview, PreviewFact, Store};
use tracing::{info, warn};

use crate::PreviewError;
use crate::journal::Journal;

/// Compares previews with their branches on GitHub.
#[derive(Clone)]
pub(crate) struct Branches {
    pub(crate) store: Store,
    pub(crate) github: Option<Github>,
    pub(crate) journal: Journal,
}

impl Branches {
    /// Looks up the branches of all previews that have no pull request, and records which are gone.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn run(&self) -> Result<(), PreviewError> {
        let Some(github) = &self.github else {
            return Ok(());
        };
        for preview in self.store.previews().await? {
            let is_compared =
                preview.record.pull_request.is_none() && preview.desired == Presence::Present;
            if is_compared && let Err(error) = self.compare(github, &preview).await {
                let slug = &preview.record.slug;
                warn!(%slug, code = %error.code(), "{}", chain(&error));
            }
        }
        Ok(())
    }

    async fn compare(&self, github: &Github, preview: &Preview) -> Result<(), PreviewError> {
        let record = &preview.record;
        let is_gone = match github.branch(&record.repo, &record.branch).await {
            Ok(_) => false,
            // A token without the permission gets the same response. It cannot read the commit either.
            Err(GithubError::BranchNotFound { .. }) => {
                github
                    .check_commit(&record.repo, &record.wanted_sha)
                    .await?;
                true
            }
            Err(error) => return Err(error.into()),
        };
        if is_gone == preview.removal_running.is_some() {
            return Ok(());
        }
        // Unless a pull request has taken the preview over meanwhile.
        let facts = vec![PreviewFact::BranchGone(is_gone)];
        if self
            .store
            .set_preview_if_unused(preview, facts)
            .await?
            .is_some()
        {
            let (repo, branch) = (&record.repo, &record.branch);
            let text = match is_gone {
                true => format!("The branch '{branch}' of {repo} is gone."),
                false => format!("The branch '{branch}' of {repo} exists again."),
            };
            info!(slug = %record.slug, "{text}");
            self.journal.note(&record.slug, text);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
