use innkeeper_github::fake::FailureKind;
use innkeeper_model::preview::CommitSha;
use innkeeper_store::PreviewFact;

use super::*;
use crate::fixture::{Harness, sha, slug};

/// Path of the comments on the pull request.
const COMMENTS: &str = "/repos/octo/web/issues/7/comments";

async fn harness() -> Harness {
    let harness = Harness::new().await;
    harness.open_pull(sha('a'));
    harness.claim().await;
    harness
}

fn reporter(harness: &Harness) -> &Reporter {
    &harness.parts.parts.reporter
}

async fn report(harness: &Harness) {
    let reported = reporter(harness).report(&slug(), false).await;
    reported.expect("accepted");
}

/// The only comment on the pull request.
fn comment(harness: &Harness) -> String {
    let comments = harness.comments();
    assert_eq!(comments.len(), 1, "{comments:?}");
    comments.concat()
}

fn requests(harness: &Harness) -> usize {
    harness.github.with(|world| world.requests.len())
}

fn state(state: PreviewState) -> Vec<PreviewFact> {
    vec![PreviewFact::State(state)]
}

async fn announced(harness: &Harness) -> Option<CommitSha> {
    harness.preview().await.expect("exists").announced_sha
}

#[tokio::test]
async fn report_is_sent_once_unless_forced() {
    let harness = harness().await;
    report(&harness).await;
    comment(&harness);
    let before = requests(&harness);
    report(&harness).await;
    assert_eq!(requests(&harness), before);
    // It was deleted on GitHub meanwhile.
    harness.change_repo(|repo| repo.comments.clear());
    reporter(&harness)
        .report_again(&slug())
        .await
        .expect("accepted");
    comment(&harness);
}

#[tokio::test]
async fn newest_state_is_reported_last() {
    let harness = harness().await;
    harness.set(state(PreviewState::Building)).await;
    // The first report is in flight when the state changes.
    harness
        .github
        .with(|world| world.fail("GET", COMMENTS, 1, FailureKind::Slow(300)));
    let first = reporter(&harness).clone();
    let first = tokio::spawn(async move { first.report(&slug(), false).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    harness.set_live(sha('a')).await;
    report(&harness).await;
    first.await.expect("ends").expect("accepted");
    let comment = comment(&harness);
    assert!(!comment.to_lowercase().contains("building"), "{comment}");
}

#[tokio::test]
async fn report_that_failed_is_sent_again() {
    let harness = harness().await;
    harness
        .github
        .with(|world| world.fail("", COMMENTS, 1, FailureKind::Status(502)));
    let failed = reporter(&harness).report(&slug(), false).await;
    assert!(failed.expect_err("refused").is_transient());
    assert!(harness.comments().is_empty());
    report(&harness).await;
    comment(&harness);
}

#[tokio::test]
async fn commit_is_announced_only_after_its_report() {
    let harness = harness().await;
    harness.set(state(PreviewState::WaitingForApproval)).await;
    harness
        .github
        .with(|world| world.fail("", COMMENTS, 1, FailureKind::Status(502)));
    let failed = reporter(&harness).report(&slug(), false).await;
    failed.expect_err("refused");
    assert_eq!(announced(&harness).await, None);
    report(&harness).await;
    assert_eq!(announced(&harness).await, Some(sha('a')));
}

#[tokio::test]
async fn other_states_announce_no_commit() {
    let harness = harness().await;
    report(&harness).await;
    assert_eq!(announced(&harness).await, None);
}

#[tokio::test]
async fn removed_preview_gets_no_further_report() {
    let harness = harness().await;
    harness.set_live(sha('a')).await;
    report(&harness).await;
    let live = comment(&harness);
    let preview = harness.preview().await.expect("exists");
    let removed = reporter(&harness).report_removal(&preview).await;
    removed.expect("accepted");
    harness
        .store
        .delete_preview(&slug())
        .await
        .expect("deleted");
    let last = harness.comments();
    assert_ne!(last, [live]);
    report(&harness).await;
    assert_eq!(harness.comments(), last);
}
