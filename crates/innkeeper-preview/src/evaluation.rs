//! From a commit's `preview-config.nix` to a closure.

use std::sync::Arc;

use innkeeper_facilities::{Evaluated, EvaluationKey, Evaluator, ProgressSink};
use innkeeper_github::client::Github;
use innkeeper_model::Code;
use innkeeper_model::preview::{CommitSha, RepoName};
use innkeeper_store::Store;

use crate::PreviewError;

/// Evaluates and builds the configurations of commits. The same text has the same result, which is cached.
#[derive(Clone)]
pub(crate) struct Evaluation {
    store: Store,
    github: Option<Github>,
    evaluator: Arc<dyn Evaluator>,
}

impl Evaluation {
    pub(crate) fn new(store: Store, github: Option<Github>, evaluator: Arc<dyn Evaluator>) -> Self {
        Self {
            store,
            github,
            evaluator,
        }
    }

    /// Evaluates and builds the configuration of a commit as untrusted code.
    ///
    /// # Errors
    /// The commit has none, or it is invalid or does not build.
    pub(crate) async fn evaluate(
        &self,
        repo: &RepoName,
        sha: &CommitSha,
        progress: ProgressSink,
    ) -> Result<(EvaluationKey, Evaluated), PreviewError> {
        let github = self.github.as_ref().ok_or(PreviewError::NoCredentials)?;
        let text = github.preview_config(repo, sha).await?;
        let text = text.ok_or_else(|| PreviewError::ConfigMissing {
            repo: repo.clone(),
            sha: sha.clone(),
        })?;
        let text = String::from_utf8(text).map_err(|_| {
            PreviewError::new(
                Code::PreviewConfigInvalid,
                "preview-config.nix is not UTF-8",
                "Save it as UTF-8.",
            )
        })?;
        let key = self.evaluator.key(&text).await?;
        let cached = self.store.evaluation(key.as_str()).await?;
        let cached = cached.map(|cached| Evaluated {
            key: key.clone(),
            closure: cached.closure,
            meta: cached.meta,
        });
        let evaluated = self
            .evaluator
            .evaluate(&text, cached.as_ref(), progress)
            .await?;
        self.store
            .cache_evaluation(evaluated.key.as_str(), &evaluated.closure, &evaluated.meta)
            .await?;
        Ok((key, evaluated))
    }
}
