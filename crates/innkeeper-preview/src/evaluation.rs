//! From a commit's `preview-config.nix` to a closure.

use std::sync::Arc;

use innkeeper_facilities::{Effort, Evaluated, EvaluationKey, Evaluator, Inspected, ProgressSink};
use innkeeper_model::preview::sources::{SourcePath, SourceTree};
use innkeeper_model::preview::{CommitSha, ConfigProblem, Meta, PackageChanges, RepoName};
use innkeeper_model::{Code, Failure, StorePath, chain};
use innkeeper_store::{Preview, Store};
use tracing::warn;

use crate::sources::Sources;
use crate::{PreviewError, PreviewsConfig};

/// Evaluates and builds the configurations of commits. The same text has the same result, which is cached.
#[derive(Clone)]
pub(crate) struct Evaluation {
    config: Arc<PreviewsConfig>,
    store: Store,
    sources: Arc<Sources>,
    evaluator: Arc<dyn Evaluator>,
}

impl Evaluation {
    pub(crate) fn new(
        config: Arc<PreviewsConfig>,
        store: Store,
        sources: Sources,
        evaluator: Arc<dyn Evaluator>,
    ) -> Self {
        Self {
            config,
            store,
            sources: Arc::new(sources),
            evaluator,
        }
    }

    /// Reports whether a commit has a configuration at a path, without reading it; `None` means the repository's
    /// first one.
    ///
    /// # Errors
    /// [`PreviewError::NoAccess`] if the commit cannot be read: the file may exist.
    pub(crate) async fn has_config(
        &self,
        repo: &RepoName,
        sha: &CommitSha,
        config: Option<&SourcePath>,
    ) -> Result<bool, PreviewError> {
        let found = self
            .sources
            .has_file(repo, sha, &self.path(repo, config))
            .await;
        found.map_err(|error| error.without_access(repo, sha))
    }

    /// Evaluates a configuration of an unknown repository without a build.
    ///
    /// # Errors
    /// The host lacks something.
    pub(crate) async fn inspect(&self, sources: &SourceTree) -> Result<Inspected, PreviewError> {
        let mut inspected = self.evaluator.inspect(sources).await?;
        if let Some(meta) = &inspected.meta {
            inspected.problems = self.reserved_prefixes(None, sources, meta).await?;
        }
        inspected.meta = inspected.meta.filter(|_| inspected.problems.is_empty());
        Ok(inspected)
    }

    /// Returns a problem for each reserved prefix that the repository, or any with `None`, did not have before.
    async fn reserved_prefixes(
        &self,
        repo: Option<&RepoName>,
        sources: &SourceTree,
        meta: &Meta,
    ) -> Result<Vec<ConfigProblem>, PreviewError> {
        let mut problems = Vec::new();
        for (prefix, problem) in meta.reserved_prefixes() {
            if !self.store.has_older_prefix(repo, prefix).await? {
                problems.push(problem.located(sources));
            }
        }
        Ok(problems)
    }

    fn path(&self, repo: &RepoName, config: Option<&SourcePath>) -> SourcePath {
        let first = || self.config.config_paths.main(repo);
        config.cloned().unwrap_or_else(first)
    }

    /// Evaluates and builds a configuration of a commit as untrusted code; `None` means the repository's first one.
    ///
    /// # Errors
    /// The commit has none, or it is invalid, does not build, or has a reserved prefix.
    pub(crate) async fn evaluate(
        &self,
        repo: &RepoName,
        sha: &CommitSha,
        config: Option<&SourcePath>,
        effort: Effort,
        progress: ProgressSink,
    ) -> Result<(EvaluationKey, Evaluated), PreviewError> {
        let main = self.path(repo, config);
        let sources = self.sources.tree(repo, sha, &main).await;
        let sources = sources.map_err(|error| error.without_access(repo, sha))?;
        let sources = sources.ok_or_else(|| PreviewError::ConfigMissing { sha: sha.clone() })?;
        let key = self.evaluator.key(&sources).await?;
        let cached = self.store.evaluation(key.as_str()).await?;
        let cached = cached.map(|cached| Evaluated {
            key: key.clone(),
            closure: cached.closure,
            meta: cached.meta,
        });
        let evaluated = self
            .evaluator
            .evaluate(&sources, cached.as_ref(), effort, progress)
            .await?;
        self.store
            .cache_evaluation(evaluated.key.as_str(), &evaluated.closure, &evaluated.meta)
            .await?;
        let reserved = self.reserved_prefixes(Some(repo), &sources, &evaluated.meta);
        if let Some(problem) = reserved.await?.into_iter().next() {
            return Err(invalid(problem));
        }
        Ok((key, evaluated))
    }

    /// Returns the packages of a closure that differ from the preview's live one. `None` if no version is live, or if the
    /// store does not list the packages: they are for information only.
    pub(crate) async fn changes(
        &self,
        preview: &Preview,
        closure: &StorePath,
    ) -> Option<PackageChanges> {
        let live = preview.live_closure.as_ref()?;
        if live == closure {
            return Some(PackageChanges::default());
        }
        let before = self.evaluator.requisites(live).await;
        let after = self.evaluator.requisites(closure).await;
        match (before, after) {
            (Ok(before), Ok(after)) => Some(PackageChanges::between(&before, &after)),
            (Err(error), _) | (_, Err(error)) => {
                warn!(slug = %preview.record.slug, "cannot compare the closures: {}", chain(&error));
                None
            }
        }
    }
}

/// Returns the error for a problem of a configuration.
fn invalid(mut problem: ConfigProblem) -> PreviewError {
    let remedy = problem.remedy.take();
    let failure = Failure::new(Code::PreviewConfigInvalid, problem.to_string());
    match remedy {
        Some(remedy) => failure.with_remedy(remedy).into(),
        None => failure.into(),
    }
}

#[cfg(test)]
mod tests;
