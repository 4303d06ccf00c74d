//! Builds without a preview, so that a preview need not wait for them.

use std::sync::Arc;

use innkeeper_model::Failure;
use innkeeper_model::api::Accepted;
use innkeeper_model::preview::api::BuildPreview;

use crate::{PreviewError, Previews};

impl Previews {
    /// Evaluates and builds the configuration of a branch's newest commit, as an operation to follow.
    ///
    /// # Errors
    /// When the repository is not allowed, GitHub has no such branch, or the daemon is stopping.
    pub async fn build(
        &self,
        request: BuildPreview,
        actor: &str,
    ) -> Result<Accepted, PreviewError> {
        let inner = Arc::clone(&self.inner);
        let BuildPreview { repo, branch } = request;
        if !inner.config.allows(&repo) {
            return Err(PreviewError::NotAllowed(repo));
        }
        let sha = inner.github()?.branch(&repo, &branch).await?;
        let engine = inner.engine.clone();
        let work = async move |progress| {
            let made = inner.evaluate_commit(&repo, &sha, progress).await;
            let (_, made) = made.map_err(|error| Failure::from(&error))?;
            let sha = sha.short();
            Ok((format!("{branch} of {repo} at {sha}"), made.closure))
        };
        Ok(engine.build_with(actor, work).await?)
    }
}
