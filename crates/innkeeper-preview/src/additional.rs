//! Additional previews of a pull request, in a repository with several configurations.
//!
//! The preview of the first configuration acts on the pull request's deliveries. Before its worker brings a commit up or
//! removes the preview, the others are made to follow: they get its commit and its approval, and each has a worker, a guest
//! and reports of its own.

use std::sync::Arc;

use innkeeper_model::preview::sources::SourcePath;
use innkeeper_model::preview::{PullRequest, Situation, config_slug, slug_candidates};
use innkeeper_store::{AdditionalConfig, Preview, Store};

use crate::evaluation::Evaluation;
use crate::plan::Plan;
use crate::reporter::Reporter;
use crate::workers::{WakeReason, Workers};
use crate::{PreviewError, PreviewsConfig};

/// Makes additional previews follow the first one.
#[derive(Clone)]
pub(crate) struct Additional {
    pub(crate) config: Arc<PreviewsConfig>,
    pub(crate) store: Store,
    pub(crate) evaluation: Evaluation,
    pub(crate) reporter: Reporter,
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
        let has_several = !self.config.config_paths.additional(&record.repo).is_empty();
        let changed = match plan {
            Plan::BringUp if has_several => {
                if !self.has_first_config(first).await? {
                    return Ok(());
                }
                let configs = self.configs(first, &pull_request).await?;
                self.conclude_missing(first, &pull_request, &configs)
                    .await?;
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
                let is_new = plan == Plan::RequestApproval && self.config.style.checks;
                if is_new && self.has_first_config(first).await? {
                    self.conclude_waiting(first, &pull_request);
                }
                self.store.follow_approval(&record.slug).await?
            }
            _ => return Ok(()),
        };
        for slug in changed {
            self.workers.wake(&slug, WakeReason::Change);
        }
        Ok(())
    }

    /// Reports whether the wanted commit has the first configuration, or an earlier one had it.
    async fn has_first_config(&self, first: &Preview) -> Result<bool, PreviewError> {
        let record = &first.record;
        let has_config = || {
            self.evaluation
                .has_config(&record.repo, &record.wanted_sha, None)
        };
        Ok(first.config_seen || has_config().await?)
    }

    async fn configs(
        &self,
        first: &Preview,
        pull_request: &PullRequest,
    ) -> Result<Vec<AdditionalConfig>, PreviewError> {
        let record = &first.record;
        let mut configs = Vec::new();
        for path in self.config.config_paths.additional(&record.repo) {
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

    /// Concludes the checks of the configurations that the commit lacks and that have no preview.
    async fn conclude_missing(
        &self,
        first: &Preview,
        pull_request: &PullRequest,
        configs: &[AdditionalConfig],
    ) -> Result<(), PreviewError> {
        let existing = self.store.additional_previews(pull_request).await?;
        let has_preview = |path: &SourcePath| {
            let mut paths = existing.iter().map(|preview| &preview.record.config_path);
            paths.any(|other| other.as_ref() == Some(path))
        };
        for config in configs {
            if !config.exists && !has_preview(&config.path) {
                self.conclude(first, pull_request, &config.path, Situation::NoConfig);
            }
        }
        Ok(())
    }

    /// Concludes the checks of a commit that waits for its approval: the additional previews get it only after that.
    fn conclude_waiting(&self, first: &Preview, pull_request: &PullRequest) {
        for path in self.config.config_paths.additional(&first.record.repo) {
            self.conclude(first, pull_request, path, Situation::WaitingForApproval);
        }
    }

    fn conclude(
        &self,
        first: &Preview,
        pull_request: &PullRequest,
        path: &SourcePath,
        situation: Situation,
    ) {
        let sha = &first.record.wanted_sha;
        self.reporter
            .conclude_soon(pull_request, Some(path), sha, situation);
    }
}

#[cfg(test)]
mod tests;
