use innkeeper_github::fake::FailureKind;
use innkeeper_model::preview::PrAction;
use innkeeper_model::{Code, Failure};

use super::*;
use crate::fixture::{Harness, repo, sha, slug};

/// A preview whose commit 'a' is live, as the open pull request wants it.
async fn harness() -> Harness {
    let harness = Harness::new().await;
    harness.open_pull(sha('a'));
    harness.claim().await;
    harness.set_live(sha('a')).await;
    harness
}

async fn compare(harness: &Harness) {
    let compared = harness.parts.resync.comparison.run().await;
    compared.expect("the store can be read");
}

async fn is_dismissed(harness: &Harness) -> bool {
    harness.preview().await.expect("exists").desired == Presence::Absent
}

#[tokio::test]
async fn preview_of_a_closed_pull_request_is_removed() {
    let mut harness = harness().await;
    harness.change_pull(|pull| pull.open = false);
    compare(&harness).await;
    assert!(is_dismissed(&harness).await);
    assert!(harness.was_woken());
}

#[tokio::test]
async fn preview_of_a_pull_request_that_github_does_not_show_is_kept() {
    let mut harness = harness().await;
    harness.change_repo(|repo| repo.pulls.clear());
    compare(&harness).await;
    assert!(!is_dismissed(&harness).await);
    assert!(!harness.was_woken());
}

#[tokio::test]
async fn another_repository_with_the_name_closes_no_pull_request() {
    let harness = harness().await;
    let id = harness.change_repo(|repo| repo.id);
    let recorded = harness.store.record_repo_name(id, &repo(), &repo()).await;
    recorded.expect("recorded");
    // The token lost its access, and another repository has the name now.
    harness.change_repo(|repo| repo.id += 1);
    harness.change_pull(|pull| pull.open = false);
    let resync = &harness.parts.resync;
    resync.repositories.check_all().await.expect("checked");
    compare(&harness).await;
    assert!(!is_dismissed(&harness).await);
}

#[tokio::test]
async fn preview_in_agreement_with_github_is_left_alone() {
    let mut harness = harness().await;
    let mut before = harness.preview().await.expect("exists");
    compare(&harness).await;
    let after = harness.preview().await.expect("exists");
    // Only what people see is recorded.
    assert_eq!(after.details.title.as_deref(), Some("Change 7"));
    assert_eq!(after.details.author.as_deref(), Some("alice"));
    assert!(after.details.is_public());
    before.details = after.details.clone();
    assert_eq!(after, before);
    assert!(!harness.was_woken());
}

#[tokio::test]
async fn lost_push_updates_the_preview() {
    let mut harness = harness().await;
    harness.change_pull(|pull| pull.head_sha = sha('b'));
    compare(&harness).await;
    let record = harness.record().await;
    assert_eq!(record.wanted_sha, sha('b'));
    assert_eq!(record.state, PreviewState::Queued);
    assert_eq!(record.live_sha, Some(sha('a')));
    assert!(harness.was_woken());
}

#[tokio::test]
async fn pending_delivery_overrides_the_list() {
    let harness = harness().await;
    harness
        .deliver("pending", PrAction::Synchronize, sha('b'))
        .await;
    harness.change_pull(|pull| pull.open = false);
    compare(&harness).await;
    assert!(!is_dismissed(&harness).await);
}

#[tokio::test]
async fn failed_list_closes_no_pull_request() {
    let harness = harness().await;
    harness.change_pull(|pull| pull.open = false);
    harness
        .github
        .with(|world| world.fail("GET", "/pulls", 1, FailureKind::Status(502)));
    compare(&harness).await;
    assert!(!is_dismissed(&harness).await);
    compare(&harness).await;
    assert!(is_dismissed(&harness).await);
}

#[tokio::test]
async fn preview_of_a_branch_is_not_compared() {
    let harness = Harness::new().await;
    let event = crate::fixture::delivery("claim", PrAction::Opened, sha('a')).event;
    let new = innkeeper_store::NewPreview {
        number: None,
        ..innkeeper_store::NewPreview::of(event.as_pull_request().expect("of a pull request"))
    };
    let claimed = harness.store.claim_preview(new, vec![slug()]).await;
    claimed.expect("claimed");
    compare(&harness).await;
    assert!(!is_dismissed(&harness).await);
}

#[tokio::test]
async fn failure_of_one_part_does_not_keep_the_others() {
    let mut harness = harness().await;
    harness.host.fail("route.visits", 1);
    harness.change_pull(|pull| pull.open = false);
    harness.parts.resync.resync().await;
    assert!(is_dismissed(&harness).await);
}

#[tokio::test]
async fn unused_preview_expires_and_is_removed_later() {
    let day = std::time::Duration::from_secs(24 * 3_600);
    let harness = Harness::with(|config| config.ttl = Some(day)).await;
    harness
        .store
        .set_expiry_grace(std::time::Duration::ZERO)
        .await
        .expect("set");
    harness.claim().await;
    harness.set_live(sha('a')).await;
    let expiry = &harness.parts.resync.checks.expiry;
    let expire = async || {
        let preview = harness.preview().await.expect("exists");
        expiry.expire_if_due(&preview).await.expect("recorded");
    };
    expire().await;
    assert_eq!(harness.record().await.state, PreviewState::Live);
    harness
        .store
        .advance_running_time(2 * day)
        .await
        .expect("advanced");
    expire().await;
    assert_eq!(harness.record().await.state, PreviewState::Expired);
    assert!(!is_dismissed(&harness).await);
    harness
        .store
        .advance_running_time(2 * day)
        .await
        .expect("advanced");
    expire().await;
    assert!(is_dismissed(&harness).await);
}

#[tokio::test]
async fn preview_without_its_file_is_removed_after_the_grace_period() {
    let hour = std::time::Duration::from_secs(3_600);
    // The TTL is shorter and does not apply.
    let harness = Harness::with(|config| config.ttl = Some(hour)).await;
    let grace = harness.store.set_expiry_grace(std::time::Duration::ZERO);
    grace.await.expect("set");
    harness.claim().await;
    let missing = Failure::new(Code::ConfigMissing, "no preview-config.nix");
    harness.set(vec![PreviewFact::Dropped(missing)]).await;
    let expiry = &harness.parts.resync.checks.expiry;
    for (hours, is_removed) in [(23, false), (2, true)] {
        let advanced = harness.store.advance_running_time(hours * hour).await;
        advanced.expect("advanced");
        let preview = harness.preview().await.expect("exists");
        expiry.expire_if_due(&preview).await.expect("recorded");
        assert_eq!(is_dismissed(&harness).await, is_removed, "{hours}");
        assert_eq!(harness.record().await.state, PreviewState::Dropped);
    }
}

#[tokio::test]
async fn grace_period_does_not_end_while_a_newer_commit_is_looked_at() {
    let harness = Harness::new().await;
    let grace = harness.store.set_expiry_grace(std::time::Duration::ZERO);
    grace.await.expect("set");
    harness.claim().await;
    let missing = Failure::new(Code::ConfigMissing, "no preview-config.nix");
    harness.set(vec![PreviewFact::Dropped(missing)]).await;
    let days = std::time::Duration::from_secs(48 * 3_600);
    let advanced = harness.store.advance_running_time(days).await;
    advanced.expect("advanced");
    let expiry = &harness.parts.resync.checks.expiry;
    // Failed: GitHub did not show the newer commit, which may have the file.
    for state in [PreviewState::Queued, PreviewState::Failed] {
        harness.set(vec![PreviewFact::State(state)]).await;
        let preview = harness.preview().await.expect("exists");
        expiry.expire_if_due(&preview).await.expect("recorded");
        assert!(!is_dismissed(&harness).await, "{state}");
    }
}
