//! Desired state of guests, and the operations that establish it.

use innkeeper_model::{
    Code, DesiredState, Explain, Failure, Installable, Level, OperationId, OperationState, Verb,
};
use innkeeper_store::{NewGuest, StoreError};

use crate::support::{Fixture, SUBNET, closure, create, forget, name, new_guest};

const ACTOR: &str = "uid:1000";

#[tokio::test]
async fn guest_record_survives_a_restart() {
    let fixture = Fixture::new(SUBNET);
    let web = name("web");
    let flake = Installable::parse("/srv/fleet#web", "").expect("installable");
    let new = NewGuest {
        kind: innkeeper_model::GuestKind::Preview,
        source: innkeeper_model::ClosureSource::Flake(flake),
        ..new_guest("web")
    };
    let (guest, operation) = fixture
        .store
        .create_guest(new.clone(), ACTOR)
        .await
        .expect("creates");
    assert_eq!((&guest.source, guest.limits), (&new.source, new.limits));
    assert_eq!(
        (guest.desired, guest.closure.as_ref()),
        (DesiredState::Running, None)
    );
    assert_eq!(
        (operation.verb, operation.actor.as_str()),
        (Verb::Create, ACTOR)
    );
    assert_eq!(operation.state, OperationState::Running);

    let fault = Failure::new(Code::UnitFailed, "no").with_remedy("try again");
    let store = &fixture.store;
    store.set_closure(&web, &closure()).await.expect("closure");
    store
        .set_ssh_host_key(&web, "ssh-ed25519 AAAA")
        .await
        .expect("key");
    store.set_fault(&web, Some(&fault)).await.expect("fault");

    let fixture = fixture.reopened().await;
    let expected = innkeeper_model::Guest {
        closure: Some(closure()),
        ssh_host_key: Some("ssh-ed25519 AAAA".to_owned()),
        fault: Some(fault),
        ..guest
    };
    let store = &fixture.store;
    assert_eq!(
        store.guest(&web).await.expect("reads"),
        Some(expected.clone())
    );
    assert_eq!(store.guests().await.expect("reads"), [expected]);
    assert_eq!(
        store.operation(operation.id).await.expect("reads"),
        Some(operation)
    );
}

#[tokio::test]
async fn guest_name_in_use_is_refused_with_a_remedy() {
    let fixture = Fixture::new(SUBNET);
    create(&fixture.store, "web").await;
    let refused = fixture.store.create_guest(new_guest("web"), ACTOR).await;
    let refused = refused.expect_err("exists");
    assert_eq!(refused.code(), Code::GuestExists);
    assert_eq!(refused.to_string(), "guest 'web' already exists");
    assert!(
        refused
            .remedy()
            .expect("remedy")
            .contains("Choose another name than 'web'")
    );

    fixture
        .store
        .begin_change(&name("web"), DesiredState::Absent, Verb::Destroy, ACTOR)
        .await
        .expect("destroy");
    let refused = fixture.store.create_guest(new_guest("web"), ACTOR).await;
    assert_eq!(
        refused.expect_err("exists").to_string(),
        "guest 'web' already exists and is being destroyed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn guest_name_goes_to_one_of_many_creates() {
    let fixture = Fixture::new(SUBNET);
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let store = fixture.store.clone();
            tokio::spawn(async move { store.create_guest(new_guest("web"), "uid:0").await })
        })
        .collect();
    let mut winners = 0;
    for task in tasks {
        match task.await.expect("answered") {
            Ok(_) => winners += 1,
            Err(StoreError::GuestExists { name, .. }) => assert_eq!(name.as_str(), "web"),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(winners, 1);
    assert_eq!(fixture.store.slots().await.expect("report").counter, 1);
    assert_eq!(
        fixture
            .store
            .running_operations()
            .await
            .expect("reads")
            .len(),
        1
    );
}

#[tokio::test]
async fn busy_guest_refuses_another_operation() {
    let fixture = Fixture::new(SUBNET);
    let (_, create) = create(&fixture.store, "web").await;
    let store = &fixture.store;
    let busy = store
        .begin_change(&name("web"), DesiredState::Stopped, Verb::Stop, ACTOR)
        .await
        .expect_err("busy");
    assert!(
        matches!(&busy, StoreError::GuestBusy { operation, verb: Verb::Create, .. } if *operation == create.id),
        "{busy:?}"
    );
    assert_eq!(busy.code(), Code::GuestBusy);
    let guest = store
        .guest(&name("web"))
        .await
        .expect("reads")
        .expect("web");
    assert_eq!(
        guest.desired,
        DesiredState::Running,
        "a refusal changed something"
    );

    let fault = Failure::new(Code::UnitFailed, "no");
    store
        .finish_operation(create.id, Some(&fault))
        .await
        .expect("ends");
    store
        .set_fault(&name("web"), Some(&fault))
        .await
        .expect("fault");
    let (guest, stop) = store
        .begin_change(&name("web"), DesiredState::Stopped, Verb::Stop, ACTOR)
        .await
        .expect("not busy any more");
    assert_eq!(
        (guest.desired, guest.fault.clone()),
        (DesiredState::Stopped, None)
    );
    assert_eq!(store.guest(&name("web")).await.expect("reads"), Some(guest));
    assert!(stop.id > create.id);
    assert_eq!(store.running_operations().await.expect("reads"), [stop]);
}

#[tokio::test]
async fn destroy_supersedes_the_running_operation() {
    let fixture = Fixture::new(SUBNET);
    let (_, create) = create(&fixture.store, "web").await;
    let store = &fixture.store;
    let web = name("web");
    let destroy = || store.begin_change(&web, DesiredState::Absent, Verb::Destroy, ACTOR);

    let (guest, first) = destroy().await.expect("accepted while busy");
    assert_eq!(guest.desired, DesiredState::Absent);
    let superseded = store
        .operation(create.id)
        .await
        .expect("reads")
        .expect("kept");
    assert_eq!(superseded.state, OperationState::Failed);
    let failure = superseded.failure.expect("failure");
    assert_eq!(failure.code, Code::GuestBusy);
    assert_eq!(
        failure.message,
        format!("superseded by operation {} (destroy)", first.id)
    );

    let (_, second) = destroy().await.expect("accepted again");
    assert_eq!(
        second, first,
        "a second destroy while one runs is the same one"
    );

    store
        .finish_operation(first.id, Some(&Failure::new(Code::RootfsFailed, "stuck")))
        .await
        .expect("ends");
    let (_, third) = destroy().await.expect("accepted after a failed one");
    assert!(third.id > first.id);

    forget(store, "web").await;
    let ended = store
        .operation(third.id)
        .await
        .expect("reads")
        .expect("kept");
    assert_eq!(ended.state, OperationState::Done);
    assert!(matches!(
        destroy().await,
        Err(StoreError::GuestNotFound { .. })
    ));
}

#[tokio::test]
async fn guest_being_destroyed_accepts_only_destroy() {
    let fixture = Fixture::new(SUBNET);
    let (_, create) = create(&fixture.store, "web").await;
    let (store, web) = (&fixture.store, name("web"));
    store
        .set_desired_state(&web, DesiredState::Absent)
        .await
        .expect("rollback");
    store.finish_operation(create.id, None).await.expect("ends");

    let refused = store
        .begin_change(&web, DesiredState::Running, Verb::Start, ACTOR)
        .await;
    let refused = refused.expect_err("leaving");
    assert_eq!(refused.code(), Code::GuestBusy);
    assert!(refused.remedy().expect("remedy").contains("web"));
    // The guest's own shutdown is observed after the destroy began.
    store
        .set_desired_state(&web, DesiredState::Stopped)
        .await
        .expect("is no error");
    let guest = store.guest(&web).await.expect("reads").expect("web");
    assert_eq!(guest.desired, DesiredState::Absent);
}

#[tokio::test]
async fn guest_deletion_ends_its_operation() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let (_, with_reason) = create(store, "a").await;
    let (_, without) = create(store, "b").await;
    let failure = Failure::new(Code::DiskFull, "full");
    store
        .delete_guest(&name("a"), Some(&failure))
        .await
        .expect("forgets");
    store.delete_guest(&name("b"), None).await.expect("forgets");
    store
        .delete_guest(&name("b"), None)
        .await
        .expect("absence is success");

    let ended = store
        .operation(with_reason.id)
        .await
        .expect("reads")
        .expect("kept");
    assert_eq!(ended.failure, Some(failure));
    let ended = store
        .operation(without.id)
        .await
        .expect("reads")
        .expect("kept");
    assert_eq!(ended.failure.expect("failure").code, Code::GuestNotFound);
    assert_eq!(store.guests().await.expect("reads"), []);
}

#[tokio::test]
async fn facts_about_a_missing_guest_are_refused() {
    let fixture = Fixture::new(SUBNET);
    let (store, gone) = (&fixture.store, name("gone"));
    let answers = [
        store.set_closure(&gone, &closure()).await,
        store.set_ssh_host_key(&gone, "key").await,
        store.set_fault(&gone, None).await,
        store.set_desired_state(&gone, DesiredState::Stopped).await,
    ];
    for answer in answers {
        assert_eq!(answer.expect_err("gone").code(), Code::GuestNotFound);
    }
}

#[tokio::test]
async fn operation_ends_once() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let build = store
        .begin_operation(Verb::Build, ACTOR)
        .await
        .expect("begins");
    let other = store
        .begin_operation(Verb::Build, ACTOR)
        .await
        .expect("two builds may run");
    assert_eq!(build.guest, None);
    store.finish_operation(build.id, None).await.expect("ends");
    let failure = Failure::new(Code::BuildFailed, "late");
    store
        .finish_operation(build.id, Some(&failure))
        .await
        .expect("is no error");
    let ended = store
        .operation(build.id)
        .await
        .expect("reads")
        .expect("kept");
    assert_eq!((ended.state, ended.failure), (OperationState::Done, None));
    assert!(ended.finished_at.expect("time") >= ended.started_at);
    assert_eq!(store.running_operations().await.expect("reads"), [other]);
    assert_eq!(store.operation(OperationId(99)).await.expect("reads"), None);
}

#[tokio::test]
async fn level_belongs_to_a_guest_that_should_run() {
    let fixture = Fixture::new(SUBNET);
    let (_, create) = create(&fixture.store, "web").await;
    let (store, web) = (&fixture.store, name("web"));
    let begin = async |level, verb| store.begin_level(&web, level, verb, ACTOR).await;
    let busy = begin(Level::Paused, Verb::Pause).await.expect_err("busy");
    assert_eq!(busy.code(), Code::GuestBusy);
    store.finish_operation(create.id, None).await.expect("ends");

    let (guest, pause) = begin(Level::Paused, Verb::Pause).await.expect("recorded");
    assert_eq!((guest.level, pause.verb), (Level::Paused, Verb::Pause));
    assert_eq!(store.guest(&web).await.expect("reads"), Some(guest));
    store.finish_operation(pause.id, None).await.expect("ends");
    store
        .set_level(&web, Level::Asleep)
        .await
        .expect("recorded");
    let refused = begin(Level::Paused, Verb::Pause).await.expect_err("asleep");
    assert_eq!(refused.code(), Code::GuestNotRunning);

    // The reason of a failed wake stays until the next request.
    let failure = Failure::new(Code::RootfsFailed, "its file tree is gone");
    let (_, wake) = begin(Level::Awake, Verb::Wake).await.expect("recorded");
    let noted = store.begin_rollback(wake.id, &failure).await;
    noted.expect("recorded");
    let noted = store.rollback_of(wake.id).await.expect("reads");
    assert_eq!(noted, Some(failure.clone()));
    store.fail_wake(&web, &failure).await.expect("recorded");
    let ended = store.finish_operation(wake.id, Some(&failure)).await;
    ended.expect("ends");
    assert_eq!(store.rollback_of(wake.id).await.expect("reads"), None);
    let guest = store.guest(&web).await.expect("reads").expect("exists");
    assert_eq!(
        (guest.level, guest.wake_failure),
        (Level::Asleep, Some(failure))
    );

    let stop = store.begin_change(&web, DesiredState::Stopped, Verb::Stop, ACTOR);
    let (guest, stop) = stop.await.expect("recorded");
    assert_eq!((guest.level, &guest.wake_failure), (Level::Awake, &None));
    store.finish_operation(stop.id, None).await.expect("ends");
    let refused = begin(Level::Asleep, Verb::Sleep)
        .await
        .expect_err("stopped");
    assert_eq!(refused.code(), Code::GuestNotRunning);
    store
        .set_level(&web, Level::Asleep)
        .await
        .expect("no effect");
    assert_eq!(store.guest(&web).await.expect("reads"), Some(guest));
}
