//! Additional previews of a pull request, in a repository with several configurations.
//!
//! The preview of the first configuration acts on the pull request's deliveries. Before its worker brings a commit up or
//! removes the preview, the others are made to follow: they get its commit and its approval, and each has a worker, a guest
//! and reports of its own.

use std::sync::Arc;

use innkeeper_model::preview::{PullRequest, config_slug, slug_candidates};
use innkeeper_store::{AdditionalConfig, Preview, Store};

use crate::evaluation::Evaluation;
use crate::plan::Plan;
use crate::workers::{WakeReason, Workers};
use crate::{PreviewError, PreviewsConfig};

/// Makes additional previews follow the first one.
#[derive(Clone)]
pub(crate) struct Additional {
    pub(crate) config: Arc<PreviewsConfig>,
    pub(crate) store: Store,
    pub(crate) evaluation: Evaluation,
    pub(crate) workers: Workers,
}

impl Additional {
    /// Makes the additional previews of a pull request follow its first preview before a plan is executed. Does nothing for
    /// an additional preview.
    ///
    /// # Errors
    /// GitHub does not return the commit's files, or the store cannot be written.
    pub(crate) async fn follow(&self, first: &Preview, plan: Plan) -> Result<(), PreviewError> {
        let record = &first.record;
        let Some(pull_request) = record.delivery_source() else {
            return Ok(());
        };
        let has_several = self.config.config_paths.of(&record.repo).len() > 1;
        let changed = match plan {
            Plan::BringUp if has_several => {
                let configs = self.configs(first, &pull_request).await?;
                self.store
                    .follow_first_preview(&record.slug, configs)
                    .await?
            }
            Plan::Remove => {
                self.store
                    .follow_first_preview(&record.slug, Vec::new())
                    .await?
            }
            Plan::RequestApproval | Plan::AwaitApproval if has_several => {
                self.store.follow_approval(&record.slug).await?
            }
            _ => return Ok(()),
        };
        for slug in changed {
            self.workers.wake(&slug, WakeReason::Change);
        }
        Ok(())
    }

    async fn configs(
        &self,
        first: &Preview,
        pull_request: &PullRequest,
    ) -> Result<Vec<AdditionalConfig>, PreviewError> {
        let record = &first.record;
        let mut configs = Vec::new();
        for path in self.config.config_paths.of(&record.repo).iter().skip(1) {
            let slug = config_slug(&record.repo, pull_request.number, path);
            let identity = format!("{pull_request}:{path}").to_ascii_lowercase();
            let exists = self
                .evaluation
                .has_config(&record.repo, &record.wanted_sha, Some(path))
                .await?;
            configs.push(AdditionalConfig {
                path: path.clone(),
                slugs: slug_candidates(&slug, &identity).collect(),
                exists,
            });
        }
        Ok(configs)
    }
}

#[cfg(test)]
mod tests;
