use innkeeper_model::{Explain as _, GuestName};
use jiff::Timestamp;

use super::*;
use crate::fixture::{Harness, preview, sha, slug};

/// A live preview of a pull request that was last used at a time.
fn used(number: u64, seconds: i64) -> Preview {
    let mut used = preview();
    used.record.slug = GuestName::parse(&format!("web-{number}")).expect("a name");
    used.record.pull_request = Some(number);
    used.record.state = PreviewState::Live;
    used.record.last_activity = Timestamp::from_second(seconds).expect("a time");
    used
}

fn evicted(present: &[Preview], newcomer: &Preview) -> Option<u64> {
    to_evict(present, newcomer).and_then(|preview| preview.record.pull_request)
}

#[test]
fn least_recently_used_preview_is_evicted() {
    let newcomer = used(9, 100);
    let mut present = [used(1, 20), used(2, 10), used(3, 30)];
    assert_eq!(evicted(&present, &newcomer), Some(2));
    // An expired one goes before all others.
    present[2].record.state = PreviewState::Expired;
    assert_eq!(evicted(&present, &newcomer), Some(3));
}

#[test]
fn busy_newer_and_used_previews_stay() {
    let newcomer = used(5, 100);
    let newer = used(6, 10);
    let used_since = used(1, 101);
    let mut busy = used(2, 10);
    busy.record.state = PreviewState::Building;
    let mut removed = used(3, 10);
    removed.desired = Presence::Absent;
    let present = [newer, used_since, busy, removed];
    assert_eq!(evicted(&present, &newcomer), None);
}

#[test]
fn age_of_the_preview_decides_across_repositories() {
    let mut newcomer = used(5, 100);
    newcomer.record.created_at = Timestamp::from_second(50).expect("a time");
    let mut other = used(6, 10);
    other.record.repo = RepoName::parse("octo/api").expect("a name");
    assert_eq!(evicted(&[other.clone()], &newcomer), Some(6));
    other.record.created_at = Timestamp::from_second(60).expect("a time");
    assert_eq!(evicted(&[other], &newcomer), None);
}

#[tokio::test]
async fn visit_is_a_use_unless_the_preview_has_expired() {
    let harness = Harness::new().await;
    let before = harness.claim().await.record.last_activity;
    let visited = before + jiff::SignedDuration::from_secs(60);
    let visit = async |state| {
        harness.set(vec![PreviewFact::State(state)]).await;
        harness.host.world().visits = vec![(slug(), visited)];
        let capacity = harness.parts.resync.capacity.clone();
        capacity.record_visits().await.expect("recorded");
        let record = harness.record().await;
        assert_eq!(record.state, state);
        record.last_activity
    };
    // Crawlers visit its page, too.
    assert_eq!(visit(PreviewState::Expired).await, before);
    assert_eq!(visit(PreviewState::Live).await, visited);
}

#[test]
fn limit_of_a_repository_counts_and_evicts_its_own_previews() {
    let newcomer = used(9, 100);
    let mut other = used(1, 1);
    other.record.repo = RepoName::parse("octo/api").expect("a name");
    let present = [other, used(2, 20), used(3, 10)];
    let repo = newcomer.record.repo.clone();
    let evicted = |most, repo| {
        let limit = Limit { most, repo };
        let evicted = limit.evicted(&present, &newcomer);
        evicted.map(|preview| preview.and_then(|preview| preview.record.pull_request))
    };
    assert_eq!(evicted(3, Some(&repo)).expect("room"), None);
    assert_eq!(evicted(2, Some(&repo)).expect("room"), Some(3));
    assert_eq!(evicted(3, None).expect("room"), Some(1));
    let busy = used(2, 200);
    let limit = Limit {
        most: 1,
        repo: Some(&repo),
    };
    let refused = limit.evicted(&[busy], &newcomer).expect_err("no room");
    assert_eq!(refused.code(), Code::TooManyPreviews);
    let remedy = refused.remedy().expect("a remedy");
    assert!(
        remedy.contains("quotas.repositories.\"octo/web\".previews"),
        "{remedy}"
    );
}

#[tokio::test]
async fn preview_below_the_limit_has_room() {
    let harness = Harness::with(|config| config.limit = 1).await;
    let newcomer = harness.claim().await;
    let capacity = &harness.parts.resync.capacity;
    assert!(capacity.needs_room(&newcomer).await.expect("observed"));
    capacity.make_room(&newcomer).await.expect("room");
    let record = harness.record().await;
    assert_eq!(
        (record.state, record.wanted_sha),
        (PreviewState::Starting, sha('a'))
    );
}
