//! The files with the secrets of repositories.

use std::path::PathBuf;

use innkeeper_model::Code;
use innkeeper_model::preview::RepoName;
use innkeeper_store::Store;

use crate::{PreviewError, PreviewsConfig};

/// Returns the file with a repository's secrets: the one with its number, or the one with its name if no other repository
/// had the name before.
///
/// # Errors
/// The store cannot be read.
pub(crate) async fn secrets_file(
    config: &PreviewsConfig,
    store: &Store,
    repo: &RepoName,
) -> Result<Option<PathBuf>, PreviewError> {
    let identity = store.repo_identity(repo).await?;
    if let Some(id) = identity.id {
        let numbered = config.secrets.join(format!("{id}.env"));
        if numbered.exists() {
            return Ok(Some(numbered));
        }
    }
    let named = config.secrets.join(format!("{}.env", repo.key()));
    Ok(identity.is_first.then_some(named))
}

/// Returns the file for changes of a repository's secrets: the one that [`secrets_file`] returns, if it exists. A new one
/// has the repository's number if that is known, and so applies under all of its names.
///
/// # Errors
/// The name is a former one, or the store cannot be read.
pub(crate) async fn secrets_file_to_change(
    config: &PreviewsConfig,
    store: &Store,
    repo: &RepoName,
) -> Result<PathBuf, PreviewError> {
    let present = secrets_file(config, store, repo).await?;
    if let Some(file) = present.as_ref().filter(|file| file.exists()) {
        return Ok(file.clone());
    }
    let identity = store.repo_identity(repo).await?;
    let numbered = identity
        .id
        .map(|id| config.secrets.join(format!("{id}.env")));
    numbered.or(present).ok_or_else(|| {
        PreviewError::new(
            Code::RepoNotAccessible,
            format!("{repo} is the former name of a repository"),
            "Use its present name: `preview list` shows it.",
        )
    })
}
