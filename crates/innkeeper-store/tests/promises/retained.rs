//! Retention of destroyed agents' files.

use innkeeper_model::{
    Code, DesiredState, Explain, Failure, FileWork, GuestKind, OperationId, OperationState,
    RetainedId, Verb,
};
use innkeeper_store::{NewGuest, RetainedFiles, Store, StoreError};

use crate::support::{Fixture, SUBNET, create, name, new_guest};

const ACTOR: &str = "uid:1000";

/// Destroys an agent with its files retained.
async fn destroy_retaining(store: &Store, guest: &str) -> RetainedId {
    create(store, guest).await;
    let destroyed = store.begin_destroy(&name(guest), true, ACTOR).await;
    let (guest, operation) = destroyed.expect("begins");
    assert_eq!(
        (guest.desired, operation.verb),
        (DesiredState::Absent, Verb::Destroy)
    );
    store
        .delete_guest(&guest.name, None)
        .await
        .expect("forgets");
    guest.retain.expect("kept")
}

async fn retained(store: &Store) -> Vec<RetainedFiles> {
    store.retained().await.expect("reads")
}

async fn undelete(store: &Store, id: RetainedId, guest: &str) -> Result<OperationId, StoreError> {
    let begun = store.begin_undelete(id, new_guest(guest), ACTOR).await;
    begun.map(|(_, operation)| operation.id)
}

#[tokio::test]
async fn retention_begins_when_the_guest_is_gone() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    create(store, "web").await;
    let begun = store.begin_destroy(&name("web"), true, ACTOR).await;
    let (guest, operation) = begun.expect("begins");
    let id = guest.retain.expect("kept");
    assert_eq!(retained(store).await, [], "the guest has them");
    // A second destroy returns the first, and changes no data.
    let again = store
        .begin_destroy(&name("web"), true, ACTOR)
        .await
        .expect("begins");
    assert_eq!((again.0.retain, again.1.id), (Some(id), operation.id));

    let fixture = fixture.reopened().await;
    let store = &fixture.store;
    assert_eq!(
        store
            .guest(&name("web"))
            .await
            .expect("reads")
            .expect("there")
            .retain,
        Some(id)
    );
    let hour = std::time::Duration::from_secs(3600);
    store.advance_running_time(hour).await.expect("advances");
    store
        .delete_guest(&name("web"), None)
        .await
        .expect("forgets");
    let files = retained(store).await;
    assert_eq!(
        (files[0].record.id, &files[0].record.name),
        (id, &name("web"))
    );
    let now = store.running_time().await.expect("reads");
    assert!(
        now.since(files[0].since) < hour,
        "counts from the end of the destruction"
    );
    assert_eq!(store.retained_ids().await.expect("reads"), [id]);
    store.set_retained_bytes(id, 4096).await.expect("records");
    assert_eq!(retained(store).await[0].record.bytes, Some(4096));
    assert_ne!(destroy_retaining(store, "web").await, id);
}

#[tokio::test]
async fn retention_covers_complete_agents_only() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let preview = NewGuest {
        kind: GuestKind::Preview,
        ..new_guest("pr-7")
    };
    store.create_guest(preview, ACTOR).await.expect("creates");
    let (guest, _) = store
        .begin_destroy(&name("pr-7"), true, ACTOR)
        .await
        .expect("begins");
    assert_eq!(guest.retain, None);

    create(store, "web").await;
    let (kept, _) = store
        .begin_destroy(&name("web"), true, ACTOR)
        .await
        .expect("begins");
    assert!(kept.retain.is_some());
    let (now, _) = store
        .begin_destroy(&name("web"), false, ACTOR)
        .await
        .expect("begins");
    assert_eq!(now.retain, None);
    // The decision to remove the files is final.
    let (later, _) = store
        .begin_destroy(&name("web"), true, ACTOR)
        .await
        .expect("begins");
    assert_eq!(later.retain, None);
    store
        .delete_guest(&name("web"), None)
        .await
        .expect("forgets");
    let files = retained(store).await;
    assert!(files[0].record.removing, "something may be left");
    let gone = undelete(store, files[0].record.id, "web").await;
    assert_eq!(gone.expect_err("refused").code(), Code::RetainedNotFound);

    create(store, "full").await;
    store
        .begin_destroy(&name("full"), true, ACTOR)
        .await
        .expect("begins");
    store
        .cancel_retention(&name("full"))
        .await
        .expect("records");
    assert_eq!(
        store
            .guest(&name("full"))
            .await
            .expect("reads")
            .expect("there")
            .retain,
        None
    );
    store
        .delete_guest(&name("full"), None)
        .await
        .expect("forgets");
    assert!(
        retained(store)
            .await
            .iter()
            .all(|files| files.record.removing)
    );
}

#[tokio::test]
async fn undelete_works_once_and_needs_a_free_name() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let id = destroy_retaining(store, "web").await;
    create(store, "web").await;
    let taken = undelete(store, id, "web").await.expect_err("refused");
    assert_eq!(taken.code(), Code::GuestExists);
    assert!(
        taken
            .remedy()
            .expect("a remedy")
            .contains("agent undelete web --as NEW")
    );
    let operation = undelete(store, id, "old").await.expect("begins");
    let guest = store
        .guest(&name("old"))
        .await
        .expect("reads")
        .expect("there");
    assert_eq!(guest.file_work, Some(FileWork::Adopt(id)));
    for refused in [
        undelete(store, id, "other").await.expect_err("refused"),
        undelete(store, RetainedId(99), "other")
            .await
            .expect_err("refused"),
    ] {
        assert_eq!(refused.code(), Code::RetainedNotFound);
    }
    assert!(store.begin_purge(id, ACTOR).await.expect("reads").is_none());
    assert_eq!(retained(store).await, []);

    // Destroying a guest before it has taken the files over retains them again.
    let (destroyed, _) = store
        .begin_destroy(&name("old"), true, ACTOR)
        .await
        .expect("begins");
    assert_eq!(destroyed.retain, Some(id));
    store
        .delete_guest(&name("old"), None)
        .await
        .expect("forgets");
    assert_eq!(retained(store).await.len(), 1);
    undelete(store, id, "old").await.expect("begins");
    store
        .finish_file_takeover(&name("old"))
        .await
        .expect("records");
    assert_eq!(store.retained_ids().await.expect("reads"), []);
    let guest = store
        .guest(&name("old"))
        .await
        .expect("reads")
        .expect("there");
    assert_eq!(guest.file_work, None);
    let ended = store
        .operation(operation)
        .await
        .expect("reads")
        .expect("there");
    assert_eq!(
        ended.state,
        OperationState::Failed,
        "the destruction took its place"
    );
}

#[tokio::test]
async fn purge_is_one_operation_and_retryable() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let id = destroy_retaining(store, "web").await;
    let (files, operation) = store
        .begin_purge(id, ACTOR)
        .await
        .expect("begins")
        .expect("one");
    assert_eq!((operation.verb, &operation.guest), (Verb::Purge, &None));
    assert_eq!(
        (files.record.removing, files.operation),
        (true, Some(operation.id))
    );
    assert!(store.begin_purge(id, ACTOR).await.expect("reads").is_none());
    assert!(undelete(store, id, "web").await.is_err());

    let fixture = fixture.reopened().await;
    let store = &fixture.store;
    assert_eq!(retained(store).await[0].operation, Some(operation.id));
    let failure = Failure::new(Code::RootfsFailed, "cannot remove it");
    store
        .end_purge(operation.id, Some(&failure))
        .await
        .expect("records");
    assert!(
        undelete(store, id, "web").await.is_err(),
        "some may be gone already"
    );
    let (_, second) = store
        .begin_purge(id, ACTOR)
        .await
        .expect("begins")
        .expect("one");
    store.end_purge(second.id, None).await.expect("records");
    assert_eq!(store.retained_ids().await.expect("reads"), []);
    assert!(
        store
            .running_operations()
            .await
            .expect("reads")
            .iter()
            .all(|one| one.verb != Verb::Purge)
    );
}
