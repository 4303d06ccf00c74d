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
