//! The event log: order, filters, pruning.

use innkeeper_model::{BuildProgress, Event, EventKind, GuestName, OperationId, Verb};
use innkeeper_store::{EventFilter, Store};
use tokio::sync::oneshot;

use crate::support::{Fixture, SUBNET, create, name};

async fn append(
    store: &Store,
    operation: Option<i64>,
    guest: Option<&GuestName>,
    kind: EventKind,
) -> Event {
    let (reply, result) = oneshot::channel();
    let on_recorded =
        |event: Result<Event, _>| reply.send(event.expect("appends")).expect("awaited");
    store.append_event(operation.map(OperationId), guest, kind, on_recorded);
    result.await.expect("recorded")
}

async fn note(store: &Store, operation: Option<i64>, guest: Option<&GuestName>, text: &str) -> i64 {
    let kind = EventKind::Note {
        text: text.to_owned(),
    };
    append(store, operation, guest, kind).await.seq
}

async fn texts(store: &Store, filter: EventFilter) -> Vec<String> {
    let events = store.events(filter).await.expect("reads");
    let text = |event: Event| match event.kind {
        EventKind::Note { text } => text,
        other => panic!("{other:?}"),
    };
    events.into_iter().map(text).collect()
}

#[tokio::test]
async fn events_are_ordered_and_filtered() {
    let fixture = Fixture::new(SUBNET);
    let (a, b) = (name("a"), name("b"));
    assert_eq!(fixture.store.last_event_seq().await.expect("reads"), 0);
    note(&fixture.store, Some(1), Some(&a), "a1").await;
    note(&fixture.store, Some(2), Some(&b), "b2").await;
    let middle = note(&fixture.store, Some(1), Some(&a), "a1 again").await;
    note(&fixture.store, None, None, "host").await;
    let last = note(&fixture.store, Some(3), Some(&a), "a3").await;

    let fixture = fixture.reopened().await;
    let store = &fixture.store;
    assert_eq!(store.last_event_seq().await.expect("reads"), last);
    let all = EventFilter::default;
    assert_eq!(
        texts(store, all()).await,
        ["a1", "b2", "a1 again", "host", "a3"]
    );
    let of_guest = EventFilter {
        guest: Some(a),
        ..all()
    };
    assert_eq!(
        texts(store, of_guest.clone()).await,
        ["a1", "a1 again", "a3"]
    );
    let of_both = EventFilter {
        operation: Some(OperationId(1)),
        ..of_guest.clone()
    };
    assert_eq!(texts(store, of_both).await, ["a1", "a1 again"]);
    let of_operation = EventFilter {
        operation: Some(OperationId(2)),
        ..all()
    };
    assert_eq!(texts(store, of_operation).await, ["b2"]);
    let later = EventFilter {
        after: middle,
        limit: 1,
        ..all()
    };
    assert_eq!(texts(store, later).await, ["host"]);
    let newest = EventFilter {
        limit: 2,
        newest: true,
        ..of_guest
    };
    assert_eq!(texts(store, newest).await, ["a1 again", "a3"]);
}

#[tokio::test]
async fn every_kind_of_event_survives_a_round_trip() {
    let fixture = Fixture::new(SUBNET);
    let failure = innkeeper_model::Failure::new(innkeeper_model::Code::TimedOut, "timed out");
    let step = || "ensure-rootfs".to_owned();
    let kinds = [
        EventKind::Accepted { verb: Verb::Create },
        EventKind::StepStarted { step: step() },
        EventKind::StepDone {
            step: step(),
            micros: 12,
        },
        EventKind::StepFailed {
            step: step(),
            failure: failure.clone(),
        },
        EventKind::Finished,
        EventKind::Failed { failure },
        EventKind::Exited { status: 133 },
    ];
    let mut appended = Vec::new();
    for kind in kinds {
        appended.push(append(&fixture.store, Some(1), None, kind).await);
    }
    let read = fixture
        .store
        .events(EventFilter::default())
        .await
        .expect("reads");
    assert_eq!(read, appended);
}

#[tokio::test]
async fn progress_is_not_stored() {
    let fixture = Fixture::new(SUBNET);
    let kind = EventKind::Progress {
        progress: BuildProgress::default(),
    };
    let event = append(&fixture.store, None, None, kind).await;
    assert_eq!(event.seq, 0);
    assert_eq!(fixture.store.last_event_seq().await.expect("reads"), 0);
}

#[tokio::test]
async fn old_events_and_operations_are_pruned() {
    let fixture = Fixture::new(SUBNET);
    let (_, running) = create(&fixture.store, "web").await;
    let store = &fixture.store;
    for _ in 0..1_100 {
        let build = store
            .begin_operation(Verb::Build, "uid:0")
            .await
            .expect("begins");
        store.finish_operation(build.id, None).await.expect("ends");
    }
    for _ in 0..10_600 {
        note(store, None, None, "x").await;
    }
    let newest = store.last_event_seq().await.expect("reads");
    let events = store.events(EventFilter::default()).await.expect("reads");
    assert_eq!(events.last().expect("some").seq, newest);
    assert!((10_000..10_600).contains(&events.len()), "{}", events.len());
    assert!(events.is_sorted_by(|a, b| a.seq + 1 == b.seq));

    let oldest_build = OperationId(running.id.0 + 1);
    let newest_build = OperationId(running.id.0 + 1_100);
    assert_eq!(store.operation(oldest_build).await.expect("reads"), None);
    assert!(
        store
            .operation(newest_build)
            .await
            .expect("reads")
            .is_some()
    );
    assert_eq!(
        store.running_operations().await.expect("reads"),
        [running],
        "a running operation is never deleted"
    );
}
