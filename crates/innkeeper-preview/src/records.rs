//! Queries on the records of previews.

use innkeeper_model::GuestName;
use innkeeper_store::{Preview, Store};

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

#[cfg(test)]
mod tests {
    use innkeeper_store::{Presence, PreviewFact};

    use super::*;
    use crate::fixture::{Harness, branch, repo, sha, slug};

    /// Reports whether a preview counts as unchanged after a fact was recorded.
    async fn is_unchanged_by(fact: PreviewFact) -> bool {
        let harness = Harness::new().await;
        let seen = harness.claim().await;
        harness.set(vec![fact]).await;
        is_unchanged(&harness.store, &seen).await.expect("read")
    }

    #[tokio::test]
    async fn new_commits_deliveries_and_removals_are_changes() {
        let head = PreviewFact::Head {
            repo: Some(repo()),
            branch: branch(),
            sha: sha('b'),
        };
        let delivery = PreviewFact::LastDelivery("newer".to_owned());
        let absent = PreviewFact::Desired(Presence::Absent);
        for change in [head, delivery, absent] {
            assert!(!is_unchanged_by(change).await);
        }
        assert!(is_unchanged_by(PreviewFact::Dirty(true)).await);
    }

    #[tokio::test]
    async fn missing_preview_is_an_error_and_a_change() {
        let harness = Harness::new().await;
        let seen = harness.claim().await;
        let store = &harness.store;
        store.delete_preview(&slug()).await.expect("deleted");
        assert!(!is_unchanged(store, &seen).await.expect("read"));
        let missing = require(store, &slug()).await;
        assert!(matches!(missing, Err(PreviewError::NotFound(_))));
    }
}
