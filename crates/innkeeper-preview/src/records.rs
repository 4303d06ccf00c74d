//! Queries on the records of previews.

use innkeeper_model::GuestName;
use innkeeper_model::preview::EnvName;
use innkeeper_store::{Preview, StaleSecret, Store};

use crate::PreviewError;

/// Returns a preview's record.
///
/// # Errors
/// [`PreviewError::NotFound`], or the store cannot be read.
pub(crate) async fn require(store: &Store, slug: &GuestName) -> Result<Preview, PreviewError> {
    let preview = store.preview(slug).await?;
    preview.ok_or_else(|| PreviewError::NotFound(slug.clone()))
}

/// Reports whether no delivery and no command changed a preview since it was read. Data from GitHub that was read before
/// such a change is stale.
///
/// # Errors
/// The store cannot be read.
pub(crate) async fn is_unchanged(store: &Store, preview: &Preview) -> Result<bool, PreviewError> {
    let then = &preview.record;
    let now = store.preview(&then.slug).await?;
    Ok(now.is_some_and(|now| {
        now.desired == preview.desired
            && now.record.wanted_sha == then.wanted_sha
            && now.record.last_delivery == then.last_delivery
    }))
}

/// Returns the secrets of which a preview's guest has a former value.
pub(crate) fn stale_secrets(slug: &GuestName, stale: &[StaleSecret]) -> Vec<EnvName> {
    let own = stale.iter().filter(|stale| stale.slug == *slug);
    own.map(|stale| stale.name.clone()).collect()
}

#[cfg(test)]
mod tests;
