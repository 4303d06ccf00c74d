//! Snapshots, copies and file work.

use innkeeper_model::{
    Code, DesiredState, Explain, FileWork, GuestName, OperationId, Origin, SnapshotLabel, Verb,
};
use innkeeper_store::{NewGuest, Store, StoreError};

use crate::support::{Fixture, SUBNET, create, name, new_guest};

const ACTOR: &str = "uid:1000";

fn label(text: &str) -> SnapshotLabel {
    SnapshotLabel::parse(text).expect("label")
}

async fn end(store: &Store, operation: OperationId) {
    store
        .finish_operation(operation, None)
        .await
        .expect("finishes");
}

/// Creates a guest without a running operation.
async fn create_idle(store: &Store, guest: &str) {
    let (_, operation) = create(store, guest).await;
    end(store, operation.id).await;
}

/// Takes a snapshot, from the intent to its record.
async fn take(store: &Store, guest: &GuestName, text: &str) {
    let begun = store.begin_snapshot(guest, &label(text), ACTOR).await;
    let (_, operation) = begun.expect("begins");
    store.finish_file_work(guest).await.expect("done");
    end(store, operation.id).await;
}

async fn labels(store: &Store) -> Vec<String> {
    let all = store.snapshots().await.expect("reads");
    let line = |one: innkeeper_model::Snapshot| format!("{}.{}", one.guest, one.label);
    all.into_iter().map(line).collect()
}

#[tokio::test]
async fn snapshot_is_listed_once_it_was_taken() {
    let fixture = Fixture::new(SUBNET);
    let web = name("web");
    create_idle(&fixture.store, "web").await;
    let begun = fixture
        .store
        .begin_snapshot(&web, &label("one"), ACTOR)
        .await;
    let (guest, operation) = begun.expect("begins");
    assert_eq!(operation.verb, Verb::Snapshot);
    assert_eq!(labels(&fixture.store).await, [""; 0], "not taken yet");

    let fixture = fixture.reopened().await;
    let store = &fixture.store;
    assert_eq!(store.guest(&web).await.expect("reads"), Some(guest.clone()));
    assert_eq!(guest.file_work, Some(FileWork::TakeSnapshot(label("one"))));
    store.finish_file_work(&web).await.expect("done");
    end(store, operation.id).await;
    assert_eq!(labels(store).await, ["web.one"]);
    let after = store.guest(&web).await.expect("reads").expect("there");
    assert_eq!(after.file_work, None);

    let again = store.begin_snapshot(&web, &label("one"), ACTOR).await;
    assert_eq!(again.expect_err("refused").code(), Code::SnapshotExists);
}

#[tokio::test]
async fn snapshot_being_deleted_is_not_listed() {
    let fixture = Fixture::new(SUBNET);
    let (store, web) = (&fixture.store, name("web"));
    create_idle(store, "web").await;
    take(store, &web, "one").await;
    let begun = store
        .begin_snapshot_removal(&web, &label("one"), ACTOR)
        .await;
    let (guest, operation) = begun.expect("begins");
    assert_eq!(
        (operation.verb, guest.file_work),
        (
            Verb::DeleteSnapshot,
            Some(FileWork::DeleteSnapshot(label("one")))
        )
    );
    assert_eq!(labels(store).await, [""; 0]);
    end(store, operation.id).await;
    // The removal has not succeeded: other file work is refused until then.
    let refused = store.begin_snapshot(&web, &label("two"), ACTOR).await;
    let refused = refused.expect_err("refused");
    assert!(matches!(refused, StoreError::FilesBusy { .. }), "{refused}");
    store.finish_file_work(&web).await.expect("done");
    take(store, &web, "two").await;
    let missing = store
        .begin_snapshot_restore(&web, &label("one"), ACTOR)
        .await;
    assert_eq!(missing.expect_err("refused").code(), Code::SnapshotNotFound);
}

#[tokio::test]
async fn snapshots_are_deleted_with_their_guest() {
    let fixture = Fixture::new(SUBNET);
    let (store, web) = (&fixture.store, name("web"));
    create_idle(store, "web").await;
    create_idle(store, "db").await;
    take(store, &web, "one").await;
    take(store, &name("db"), "one").await;
    let destroyed = store
        .begin_change(&web, DesiredState::Absent, Verb::Destroy, ACTOR)
        .await;
    destroyed.expect("is to go");
    let refused = store.begin_snapshot(&web, &label("two"), ACTOR).await;
    assert_eq!(refused.expect_err("refused").code(), Code::GuestBusy);
    store.delete_guest(&web, None).await.expect("forgets");
    assert_eq!(labels(store).await, ["db.one"]);
}

#[tokio::test]
async fn copy_is_independent_and_needs_an_idle_origin() {
    let fixture = Fixture::new(SUBNET);
    let (store, web) = (&fixture.store, name("web"));
    let copy = |snapshot: Option<&str>| NewGuest {
        origin: Some(Origin {
            guest: name("web"),
            snapshot: snapshot.map(label),
        }),
        declared: false,
        idle_policy: None,
        ..new_guest("copy")
    };
    let refusal = async |new: NewGuest| {
        let refused = store.create_guest(new, ACTOR).await;
        refused.expect_err("refused").code()
    };
    assert_eq!(refusal(copy(None)).await, Code::GuestNotFound);
    let (_, creating) = create(store, "web").await;
    assert_eq!(refusal(copy(None)).await, Code::GuestBusy);
    end(store, creating.id).await;
    assert_eq!(refusal(copy(Some("one"))).await, Code::SnapshotNotFound);
    take(store, &web, "one").await;

    let (guest, operation) = store
        .create_guest(copy(Some("one")), ACTOR)
        .await
        .expect("creates");
    assert_eq!((operation.verb, guest.slot.number()), (Verb::Fork, 2));
    let origin = copy(Some("one")).origin.map(FileWork::CopyOf);
    assert_eq!(guest.file_work, origin);
    assert_eq!(refusal(copy(None)).await, Code::GuestExists);
    store.finish_file_work(&guest.name).await.expect("done");
    assert_eq!(labels(store).await, ["web.one"], "it has none of its own");

    store
        .begin_change(&web, DesiredState::Absent, Verb::Destroy, ACTOR)
        .await
        .expect("is to go");
    let third = NewGuest {
        name: name("third"),
        ..copy(None)
    };
    assert_eq!(refusal(third).await, Code::GuestBusy);
}
