//! Deliveries: each is processed once, and the newest intent of a pull request wins.

use std::time::Duration;

use innkeeper_model::preview::api::DeliveryState;
use innkeeper_model::preview::{PrAction, PreviewState, RepoName};
use innkeeper_model::{Code, Failure};
use innkeeper_store::{
    CommandChange, DeliveryFilter, DeliveryOutcome, NextDelivery, Presence, PreviewFact,
    PreviewRequest, Receipt, Store, StoreError, retry_after,
};
use jiff::Timestamp;

use crate::support::{
    Fixture, SUBNET, command, create, delivery, name, preview, pull_request, with_event,
};

async fn record(store: &Store, id: &str, action: PrAction, commit: u8) -> Receipt {
    store
        .record_delivery(delivery(id, 1, action, commit))
        .await
        .expect("records")
}

/// Returns the id of the delivery to process now.
pub(crate) async fn next(store: &Store, number: u64) -> Option<String> {
    match store
        .next_delivery(&pull_request(number))
        .await
        .expect("reads")
    {
        NextDelivery::Process(delivery) => Some(delivery.event.id().to_owned()),
        NextDelivery::WaitUntil(_) | NextDelivery::None => None,
    }
}

async fn state(store: &Store, id: &str) -> DeliveryState {
    let delivery = store.delivery(id).await.expect("reads");
    delivery.expect("is kept").state
}

pub(crate) fn failure() -> Failure {
    Failure::new(Code::TimedOut, "GitHub does not answer")
}

#[tokio::test]
async fn newest_commit_supersedes_older_ones() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    record(store, "a", PrAction::Opened, 1).await;
    assert_eq!(next(store, 1).await.as_deref(), Some("a"));
    record(store, "b", PrAction::Synchronize, 2).await;
    record(store, "c", PrAction::Synchronize, 3).await;
    assert_eq!(next(store, 1).await.as_deref(), Some("c"));
    let counted = store.finish_delivery("a", DeliveryOutcome::Done).await;
    assert!(!counted.expect("answers"), "it was superseded meanwhile");
    for id in ["a", "b"] {
        assert_eq!(state(store, id).await, DeliveryState::Superseded);
    }
    assert!(
        store
            .finish_delivery("c", DeliveryOutcome::Done)
            .await
            .expect("ends")
    );
    assert_eq!(next(store, 1).await, None);
    assert_eq!(store.pending_pull_requests().await.expect("reads"), []);
}

#[tokio::test]
async fn override_outlives_earlier_deliveries() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let (slug, desired) = (name("web-1"), |desired| vec![PreviewFact::Desired(desired)]);
    record(store, "a", PrAction::Opened, 1).await;
    let follow = |id| store.set_preview_for_delivery(id, &slug, desired(Presence::Present));
    assert!(follow("a").await.expect("records").is_some());
    // It fails and is to be retried; meanwhile, a command on the host removes the preview.
    let retry = DeliveryOutcome::Retry {
        failure: failure(),
        after: Duration::ZERO,
    };
    store.finish_delivery("a", retry).await.expect("ends");
    store
        .override_preview(&slug, desired(Presence::Absent))
        .await
        .expect("records");
    assert_eq!(next(store, 1).await, None);
    assert_eq!(state(store, "a").await, DeliveryState::Superseded);
    assert_eq!(follow("a").await.expect("answers"), None);
    let now = store.preview(&slug).await.expect("reads").expect("there");
    assert_eq!(now.desired, Presence::Absent);

    // Later deliveries count, and `closed` is not overridden.
    record(store, "b", PrAction::Synchronize, 2).await;
    assert_eq!(next(store, 1).await.as_deref(), Some("b"));
    record(store, "c", PrAction::Closed, 2).await;
    store
        .override_preview(&slug, desired(Presence::Present))
        .await
        .expect("records");
    assert_eq!(next(store, 1).await.as_deref(), Some("c"));
}

#[tokio::test]
async fn superseding_delivery_is_named() {
    async fn yields_to(store: &Store, id: &str) -> Option<String> {
        let delivery = store.delivery(id).await.expect("reads").expect("is kept");
        let other = store.superseding_delivery(&delivery).await.expect("reads");
        other.map(|other| other.event.id().to_owned())
    }

    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    record(store, "a", PrAction::Opened, 1).await;
    assert_eq!(yields_to(store, "a").await, None);
    record(store, "b", PrAction::Labeled("x".to_owned()), 1).await;
    record(store, "c", PrAction::Synchronize, 2).await;
    record(store, "d", PrAction::Closed, 2).await;
    assert_eq!(
        yields_to(store, "a").await.as_deref(),
        Some("c"),
        "before it was noticed"
    );
    assert_eq!(next(store, 1).await.as_deref(), Some("b"));
    for (id, newer) in [("a", Some("c")), ("b", None), ("c", Some("d")), ("d", None)] {
        assert_eq!(yields_to(store, id).await.as_deref(), newer, "{id}");
    }
    record(store, "late", PrAction::Synchronize, 3).await;
    assert_eq!(yields_to(store, "late").await.as_deref(), Some("d"));
    for id in ["b", "d"] {
        let done = store.finish_delivery(id, DeliveryOutcome::Done).await;
        assert!(done.expect("ends"), "{id}");
    }
    record(store, "again", PrAction::Reopened, 3).await;
    assert_eq!(yields_to(store, "d").await, None, "what was done was done");
}

#[tokio::test]
async fn older_intent_that_arrives_later_is_stale() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let record = async |id: &str, action, said: &str| {
        let time = format!("2026-11-20T{said}Z").parse().expect("a time");
        let new = with_event(delivery(id, 1, action, 1), |event| {
            event.updated_at = Some(time);
        });
        store.record_delivery(new).await.expect("records")
    };
    let slug = Some(name("web-1"));
    let counts = Receipt::New { slug: slug.clone() };
    let late = Receipt::Stale { slug };
    for (id, action, said, expected) in [
        ("d1", PrAction::Reopened, "10:00:30", &counts),
        ("d2", PrAction::Closed, "10:00:00", &late),
        ("d3", PrAction::Opened, "09:00:00", &late),
        // At about the same time, the order of arrival decides.
        ("d4", PrAction::Synchronize, "10:00:25", &counts),
        ("d5", PrAction::Labeled("x".to_owned()), "09:00:00", &counts),
        ("d6", PrAction::Closed, "10:01:00", &counts),
        ("d7", PrAction::Reopened, "10:00:30", &late),
        ("d8", PrAction::Reopened, "10:02:00", &counts),
        // A closed pull request gets no commits: a `reopened` was lost.
        ("d9", PrAction::Closed, "10:03:00", &counts),
        ("d10", PrAction::Synchronize, "10:03:01", &late),
        ("d11", PrAction::Synchronize, "10:04:00", &counts),
    ] {
        assert_eq!(&record(id, action, said).await, expected, "{id}");
    }
    let ignored = store.delivery("d2").await.expect("reads").expect("kept");
    let first = store.superseding_delivery(&ignored).await.expect("reads");
    assert_eq!(first.expect("one").event.id(), "d1");
}

#[tokio::test]
async fn after_closed_only_reopened_counts() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    record(store, "a", PrAction::Opened, 1).await;
    record(store, "b", PrAction::Closed, 1).await;
    let late = record(store, "c", PrAction::Synchronize, 2).await;
    assert!(matches!(late, Receipt::Stale { .. }), "{late:?}");
    assert_eq!(state(store, "c").await, DeliveryState::Ignored);
    assert_eq!(next(store, 1).await.as_deref(), Some("b"));
    record(store, "d", PrAction::Reopened, 2).await;
    record(store, "e", PrAction::Synchronize, 3).await;
    assert_eq!(next(store, 1).await.as_deref(), Some("e"));
}

#[tokio::test]
async fn labels_are_processed_in_order() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let label = || PrAction::Labeled("preview".to_owned());
    record(store, "a", label(), 1).await;
    record(store, "b", PrAction::Unlabeled, 1).await;
    record(store, "c", PrAction::Synchronize, 2).await;
    let retry = DeliveryOutcome::Retry {
        failure: failure(),
        after: Duration::from_secs(3600),
    };
    store.finish_delivery("a", retry).await.expect("records");
    assert_eq!(
        next(store, 1).await.as_deref(),
        Some("c"),
        "a new commit does not wait for a label, and the second label does not overtake the first"
    );
    store
        .finish_delivery("c", DeliveryOutcome::Done)
        .await
        .expect("ends");
    let NextDelivery::WaitUntil(until) =
        store.next_delivery(&pull_request(1)).await.expect("reads")
    else {
        panic!("'b' must wait for 'a'");
    };
    assert!(until > Timestamp::now());
    store.replay_delivery("a").await.expect("replays");
    for id in ["a", "b"] {
        assert_eq!(next(store, 1).await.as_deref(), Some(id));
        store
            .finish_delivery(id, DeliveryOutcome::Done)
            .await
            .expect("ends");
    }
}

#[tokio::test]
async fn external_failures_are_retried_and_others_are_not() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    record(store, "a", PrAction::Opened, 1).await;
    let again = DeliveryOutcome::Retry {
        failure: failure(),
        after: Duration::ZERO,
    };
    store.finish_delivery("a", again).await.expect("records");
    let NextDelivery::Process(delivery) =
        store.next_delivery(&pull_request(1)).await.expect("reads")
    else {
        panic!("it is due");
    };
    assert_eq!((delivery.attempts, delivery.failure), (1, Some(failure())));
    store
        .finish_delivery("a", DeliveryOutcome::Failed(failure()))
        .await
        .expect("records");
    assert_eq!(next(store, 1).await, None);

    let replayed = store.replay_delivery("a").await.expect("replays");
    assert_eq!(
        (replayed.state, replayed.attempts),
        (DeliveryState::Pending, 0)
    );
    record(store, "b", PrAction::Synchronize, 2).await;
    assert_eq!(next(store, 1).await.as_deref(), Some("b"));
    store
        .finish_delivery("b", DeliveryOutcome::Done)
        .await
        .expect("ends");
    store.replay_delivery("a").await.expect("replays");
    assert_eq!(
        next(store, 1).await,
        None,
        "an old commit does not come back"
    );
    assert_eq!(state(store, "a").await, DeliveryState::Superseded);

    let unknown = store.replay_delivery("nobody").await.expect_err("unknown");
    assert!(matches!(unknown, StoreError::DeliveryNotFound { .. }));
    let waits: Vec<u64> = (1..9).map(|n| retry_after(n).as_secs()).collect();
    assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 600]);
}

#[tokio::test]
async fn first_delivery_claims_the_slug() {
    let fixture = Fixture::new(SUBNET);
    create(&fixture.store, "web-1").await;
    let mut new = delivery("a", 1, PrAction::Opened, 1);
    let taken = fixture.store.record_delivery(new.clone()).await;
    assert_eq!(taken.expect("answers"), Receipt::SlugsTaken);
    assert_eq!(fixture.store.delivery("a").await.expect("reads"), None);

    new.slugs.push(name("other-1"));
    let slug = Some(name("other-1"));
    let accepted = fixture.store.record_delivery(new).await.expect("records");
    assert_eq!(accepted, Receipt::New { slug: slug.clone() });
    let fixture = fixture.reopened().await;
    let upper = with_event(delivery("b", 1, PrAction::Closed, 1), |event| {
        event.pull_request.repo = RepoName::parse("Octo/WEB").expect("repository");
    });
    let closed = fixture.store.record_delivery(upper.clone()).await;
    assert_eq!(
        closed.expect("records"),
        Receipt::New { slug: slug.clone() }
    );
    let again = fixture.store.record_delivery(upper).await.expect("records");
    assert_eq!(
        again,
        Receipt::Duplicate {
            slug,
            is_finished: false
        }
    );
    assert_eq!(next(&fixture.store, 1).await.as_deref(), Some("b"));
}

#[tokio::test]
async fn redelivery_runs_a_failed_delivery_again() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let opened = record(store, "a", PrAction::Opened, 1).await;
    let Receipt::New { slug } = opened.clone() else {
        panic!("{opened:?}");
    };
    let duplicate = |is_finished| Receipt::Duplicate {
        slug: slug.clone(),
        is_finished,
    };
    let redeliver = || record(store, "a", PrAction::Opened, 1);
    assert_eq!(redeliver().await, duplicate(false));
    let finish = async |outcome| {
        let finished = store.finish_delivery("a", outcome).await;
        assert!(finished.expect("ends"));
    };
    finish(DeliveryOutcome::Failed(failure())).await;
    assert_eq!(next(store, 1).await, None);

    assert_eq!(redeliver().await, opened);
    assert_eq!(next(store, 1).await.as_deref(), Some("a"));
    let again = store.delivery("a").await.expect("reads").expect("is kept");
    assert_eq!((again.attempts, again.failure), (0, None));
    finish(DeliveryOutcome::Done).await;
    assert_eq!(redeliver().await, duplicate(true));
    assert_eq!(state(store, "a").await, DeliveryState::Done);
}

#[tokio::test]
async fn redelivery_after_a_newer_intent_changes_nothing() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    record(store, "a", PrAction::Opened, 1).await;
    let failed = DeliveryOutcome::Failed(failure());
    store.finish_delivery("a", failed).await.expect("ends");
    record(store, "b", PrAction::Synchronize, 2).await;
    record(store, "a", PrAction::Opened, 1).await;
    assert_eq!(next(store, 1).await.as_deref(), Some("b"));
    assert_eq!(state(store, "a").await, DeliveryState::Superseded);

    let failed = DeliveryOutcome::Failed(failure());
    store.finish_delivery("b", failed).await.expect("ends");
    record(store, "c", PrAction::Closed, 2).await;
    let late = record(store, "b", PrAction::Synchronize, 2).await;
    assert!(matches!(late, Receipt::Stale { .. }), "{late:?}");
    assert_eq!(state(store, "b").await, DeliveryState::Failed);
    assert_eq!(next(store, 1).await.as_deref(), Some("c"));
}

#[tokio::test]
async fn delivery_list_is_filtered_and_newest_first() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    for n in 1..=4 {
        let new = delivery(&format!("d{n}"), n, PrAction::Opened, 1);
        store.record_delivery(new).await.expect("records");
    }
    store
        .finish_delivery("d2", DeliveryOutcome::Done)
        .await
        .expect("ends");
    let ids = async |filter| -> Vec<String> {
        let list = store.deliveries(filter).await.expect("reads");
        list.into_iter().map(|d| d.event.id().to_owned()).collect()
    };
    assert_eq!(
        ids(DeliveryFilter::default()).await,
        ["d4", "d3", "d2", "d1"]
    );
    let done = DeliveryFilter {
        state: Some(DeliveryState::Done),
        ..DeliveryFilter::default()
    };
    assert_eq!(ids(done).await, ["d2"]);
    let older = DeliveryFilter {
        repo: Some(RepoName::parse("OCTO/web").expect("repository")),
        before: Some(4),
        limit: 2,
        ..DeliveryFilter::default()
    };
    assert_eq!(ids(older).await, ["d3", "d2"]);
    let one = DeliveryFilter {
        number: Some(3),
        ..DeliveryFilter::default()
    };
    assert_eq!(ids(one).await, ["d3"]);
}

#[tokio::test]
async fn concurrent_intents_tie_when_order_matters() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let arrive = async |id: &str, action: PrAction, commit: u8, at: &str| {
        let time = format!("2026-11-20T{at}Z").parse().expect("a time");
        let new = with_event(delivery(id, 1, action, commit), |event| {
            event.updated_at = Some(time);
        });
        store.record_delivery(new).await.expect("records");
    };
    let tie = async |id: &str| {
        let delivery = store.delivery(id).await.expect("reads").expect("kept");
        let tie = store.latest_tied_time(&delivery).await.expect("reads");
        tie.map(|time| time.strftime("%T").to_string())
    };
    arrive("opened", PrAction::Opened, 1, "10:00:00").await;
    arrive("push", PrAction::Synchronize, 2, "10:01:00").await;
    assert_eq!(tie("push").await, None, "the times tell them apart");
    arrive("closed", PrAction::Closed, 2, "10:01:02").await;
    assert_eq!(tie("closed").await, None, "nobody pushes to what is closed");
    arrive("edited", PrAction::Edited, 2, "10:01:02").await;
    arrive("reopened", PrAction::Reopened, 2, "10:01:01").await;
    assert_eq!(tie("reopened").await.as_deref(), Some("10:01:02"));
    assert_eq!(tie("closed").await.as_deref(), Some("10:01:02"));
    assert_eq!(tie("push").await, None, "it shows the same commit");
    arrive("other", PrAction::Synchronize, 3, "10:01:03").await;
    assert_eq!(tie("push").await.as_deref(), Some("10:01:03"));
    assert_eq!(tie("opened").await, None);
}

#[tokio::test]
async fn command_is_recorded_once_for_a_comment() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let record = async |new| store.record_delivery(new).await.expect("records");
    let first = record(command("app", 1, 12, "stop")).await;
    assert_eq!(first, Receipt::New { slug: None });
    // The webhook of the repository delivers the same comment under another id.
    let again = record(command("repo", 1, 12, "stop")).await;
    let duplicate = |is_finished| Receipt::Duplicate {
        slug: None,
        is_finished,
    };
    assert_eq!(again, duplicate(false));
    let refused = DeliveryOutcome::Failed(Failure::new(Code::GithubFailed, "no answer"));
    assert!(store.finish_delivery("app", refused).await.expect("ends"));
    assert_eq!(
        record(command("repo", 1, 12, "stop")).await,
        duplicate(true)
    );
    let redelivered = record(command("app", 1, 12, "stop")).await;
    assert_eq!(redelivered, Receipt::New { slug: None });
    let other = record(command("other", 1, 13, "stop")).await;
    assert_eq!(other, Receipt::New { slug: None });
    assert_eq!(store.previews().await.expect("reads"), []);
}

#[tokio::test]
async fn command_waits_for_the_record_of_earlier_intents_only() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let slug = name("web-1");
    for new in [
        delivery("opened", 1, PrAction::Opened, 1),
        command("stop", 1, 12, "stop"),
        delivery("push", 1, PrAction::Edited, 1),
    ] {
        store.record_delivery(new).await.expect("records");
    }
    let next = async || next(store, 1).await;
    assert_eq!(next().await.as_deref(), Some("opened"));
    let facts = vec![PreviewFact::LastDelivery("opened".to_owned())];
    let recorded = store.set_preview_for_delivery("opened", &slug, facts).await;
    assert!(recorded.expect("records").is_some());
    assert_eq!(next().await.as_deref(), Some("stop"), "its work goes on");

    let execute = async || {
        let stopped = CommandChange {
            slug: slug.clone(),
            facts: vec![PreviewFact::Stopped],
            approved: None,
        };
        let executed = store.execute_command("stop", vec![stopped]).await;
        executed.expect("records")
    };
    assert!(execute().await);
    let preview = store.preview(&slug).await.expect("reads").expect("there");
    assert_eq!(preview.record.state, PreviewState::Stopped);
    let queued = vec![PreviewFact::State(PreviewState::Queued)];
    store.set_preview(&slug, queued).await.expect("records");
    assert!(!execute().await, "it is executed at most once");
    let preview = store.preview(&slug).await.expect("reads").expect("there");
    assert_eq!(preview.record.state, PreviewState::Queued);
    for id in ["opened", "stop"] {
        let delivery = store.delivery(id).await.expect("reads").expect("kept");
        assert_eq!(delivery.state, DeliveryState::Done, "{id}");
        assert!(delivery.finished_at.is_some(), "{id}");
    }
    assert_eq!(next().await.as_deref(), Some("push"), "in their order");
}

#[tokio::test]
async fn command_records_a_preview_and_its_own_end_together() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let start = command("start", 1, 12, "start");
    store.record_delivery(start).await.expect("records");
    let claim = async || {
        let slugs = vec![name("web-1")];
        let request = Some(PreviewRequest::Command);
        let claimed = store.claim_for_delivery("start", preview(1), slugs, request);
        claimed.await.expect("records")
    };
    let claimed = claim().await.expect("pending");
    assert_eq!(claimed.request, Some(PreviewRequest::Command));
    assert_eq!(claimed.record.last_delivery.as_deref(), Some("start"));
    let ended = store.delivery("start").await.expect("reads").expect("kept");
    assert_eq!(ended.state, DeliveryState::Done);
    store.delete_preview(&name("web-1")).await.expect("deletes");
    assert_eq!(claim().await, None, "it is executed at most once");
    assert_eq!(store.previews().await.expect("reads"), []);
}
