//! Reads the files that a commit's configuration consists of, with few queries of GitHub's API.
//!
//! ```text
//!  root folder ─► preview-config.nix ─► the paths in it ─► files, and folders with their files ─► paths in these …
//! ```
//!
//! Git names objects by their hash, so that a push costs one query, plus one for each changed file or folder among them:
//! `objects` keeps the others in memory. `walk` follows symbolic links inside the repository only; `collect` bounds the
//! number and size of the files.

mod collect;
mod objects;
mod walk;

use innkeeper_github::client::Github;
use innkeeper_model::preview::sources::{FileTypes, SourcePath, SourceTree};
use innkeeper_model::preview::{CommitSha, RepoName};

use crate::PreviewError;
use collect::{Collector, Limits};
use objects::Objects;
use walk::{Place, Walker};

/// Reads configurations.
pub(crate) struct Sources {
    objects: Objects,
    types: FileTypes,
    limits: Limits,
}

impl Sources {
    pub(crate) fn new(github: Option<Github>, types: FileTypes) -> Self {
        Self {
            objects: Objects::new(github),
            types,
            limits: Limits::default(),
        }
    }

    /// Reports whether a commit has a file, without reading it.
    ///
    /// # Errors
    /// GitHub's; a commit that cannot be read is an error, not a missing file.
    pub(crate) async fn has_file(
        &self,
        repo: &RepoName,
        sha: &CommitSha,
        path: &SourcePath,
    ) -> Result<bool, PreviewError> {
        let walker = Walker::at(&self.objects, repo, sha).await?;
        Ok(matches!(walker.walk(path).await?.place, Place::File(_)))
    }

    /// Returns a commit's configuration. `None` if it has none.
    ///
    /// # Errors
    /// GitHub's, or the main file is too large; a commit that cannot be read is an error, not a missing file.
    pub(crate) async fn tree(
        &self,
        repo: &RepoName,
        sha: &CommitSha,
        main: &SourcePath,
    ) -> Result<Option<SourceTree>, PreviewError> {
        let walker = Walker::at(&self.objects, repo, sha).await?;
        Collector::new(walker, &self.types, self.limits)
            .collect(main)
            .await
    }
}

#[cfg(test)]
pub(crate) mod tests;
