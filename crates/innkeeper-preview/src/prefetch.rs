//! Evaluations of base branches before a pull request needs them. Most pull requests leave the configuration as it is on their
//! base, and then get the same closure.

use innkeeper_facilities::{Effort, ProgressSink};
use innkeeper_model::StorePath;
use innkeeper_model::preview::RepoName;
use innkeeper_model::preview::sources::SourcePath;
use innkeeper_store::Presence;

use crate::{PreviewError, Previews};

/// A configuration on the default branch of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseConfig {
    /// The repository.
    pub repo: RepoName,
    /// The path of the configuration in it.
    pub path: SourcePath,
}

impl Previews {
    /// Returns the configurations on the default branches: of repositories that the settings list, then of those with previews,
    /// each once.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn base_configs(&self) -> Result<Vec<BaseConfig>, PreviewError> {
        let components = &self.components;
        let config = &components.config;
        let mut repos = config.repositories.clone();
        for preview in components.store.previews().await? {
            let repo = &preview.record.repo;
            if preview.desired == Presence::Present && config.allows(repo) && !repos.contains(repo)
            {
                repos.push(repo.clone());
            }
        }
        let configs = repos.into_iter().flat_map(|repo| {
            let paths = config.config_paths.of(&repo).to_vec();
            paths.into_iter().map(move |path| BaseConfig {
                repo: repo.clone(),
                path,
            })
        });
        Ok(configs.collect())
    }

    /// Evaluates and builds a configuration on the default branch at low priority, unless that was done before. `None` if the
    /// branch has no such file. Dropping the future ends the build.
    ///
    /// # Errors
    /// As `preview build`.
    pub async fn build_base(
        &self,
        base: &BaseConfig,
        progress: ProgressSink,
    ) -> Result<Option<StorePath>, PreviewError> {
        let BaseConfig { repo, path } = base;
        let components = &self.components;
        let github = components.github()?;
        // GitHub redirects from former names. Another repository than that of the previews is none of this host's.
        let found = github.repo(repo).await?;
        if found.name != *repo || !components.config.allows(&found.name) {
            return Err(PreviewError::NotAllowed(found.name));
        }
        let Some(branch) = found.default_branch else {
            return Ok(None);
        };
        let sha = github.branch(repo, &branch).await?;
        let evaluation = &components.evaluation;
        let effort = Effort::Background;
        let built = evaluation.evaluate(repo, &sha, Some(path), effort, progress);
        match built.await {
            Ok((_, built)) => Ok(Some(built.closure)),
            Err(PreviewError::ConfigMissing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
