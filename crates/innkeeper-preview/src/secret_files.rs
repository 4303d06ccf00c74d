//! The files with the secrets of repositories.

use std::path::PathBuf;

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
