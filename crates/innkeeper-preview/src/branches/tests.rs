use std::time::Duration;

use innkeeper_github::fake::FailureKind;
use innkeeper_model::preview::PrAction;
use innkeeper_store::NewPreview;

use super::*;
use crate::fixture::{Harness, branch, delivery, repo, sha, slug};

/// A preview of the branch that a user created.
async fn harness() -> Harness {
    let harness = Harness::new().await;
    let new = NewPreview {
        repo: repo(),
        number: None,
        branch: branch(),
        head_repo: Some(repo()),
        wanted_sha: sha('a'),
    };
    let claimed = harness.store.claim_preview(new, vec![slug()]).await;
    claimed.expect("claimed");
    harness.set_live(sha('a')).await;
    harness
}

/// Compares the branch, with these statuses of the branch and of the commit on GitHub.
async fn compare(harness: &Harness, found: u16, readable: u16) -> Preview {
    harness.github.with(|world| {
        world.failures.clear();
        world.fail("GET", "/git/ref/heads/", 1, FailureKind::Status(found));
        world.fail("GET", "/git/commits/", 1, FailureKind::Status(readable));
    });
    let compared = harness.parts.resync.branches.run().await;
    compared.expect("the store can be read");
    harness.preview().await.expect("exists")
}

#[tokio::test]
async fn branch_is_gone_only_if_its_commit_can_be_read() {
    let harness = harness().await;
    for (found, readable) in [(502, 200), (403, 200), (404, 404), (404, 403)] {
        let preview = compare(&harness, found, readable).await;
        assert_eq!(preview.removal_running, None, "{found} {readable}");
    }
    let gone = compare(&harness, 404, 200).await;
    assert!(gone.removal_running.is_some());
    // It stays live during the grace period, which is not begun again.
    assert_eq!(gone.record.live_sha, Some(sha('a')));
    let hour = Duration::from_secs(3_600);
    harness
        .store
        .advance_running_time(hour)
        .await
        .expect("advanced");
    assert_eq!(compare(&harness, 404, 200).await, gone);
}

#[tokio::test]
async fn pull_request_that_takes_a_preview_over_ends_the_grace_period() {
    let harness = harness().await;
    assert!(compare(&harness, 404, 200).await.removal_running.is_some());
    let opened = delivery("opened", PrAction::Opened, sha('b'));
    harness
        .store
        .record_delivery(opened)
        .await
        .expect("recorded");
    let taken = harness.preview().await.expect("exists");
    assert_eq!(taken.record.pull_request, Some(7));
    assert_eq!(taken.removal_running, None);
    // Its branch is not looked up any more.
    assert_eq!(compare(&harness, 404, 200).await, taken);
}
