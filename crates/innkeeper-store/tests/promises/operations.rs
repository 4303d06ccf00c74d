//! What is wanted of guests, and the operations that make it so.

use innkeeper_model::{
    Code, DesiredState, Explain, Failure, Installable, OperationId, OperationState, Verb,
};
use innkeeper_store::{NewGuest, StoreError};

use crate::support::{Fixture, closure, create, forget, name, new_guest};

const ACTOR: &str = "uid:1000";

#[tokio::test]
async fn a_guest_is_read_back_as_it_was_recorded() {
    let fixture = Fixture::new("10.100.0.0/16");
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
async fn a_name_in_use_is_refused_with_a_remedy() {
    let fixture = Fixture::new("10.100.0.0/16");
    create(&fixture.store, "web").await;
    let refused = fixture.store.create_guest(new_guest("web"), ACTOR).await;
    let refused = refused.expect_err("exists");
    assert_eq!(refused.code(), Code::GuestExists);
    assert_eq!(refused.to_string(), "guest 'web' exists already");
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
        "guest 'web' exists already and is being destroyed"
    );
}

#[tokio::test]
async fn a_guest_that_is_busy_takes_no_other_operation() {
    let fixture = Fixture::new("10.100.0.0/16");
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
async fn a_destroy_is_always_accepted_and_supersedes() {
    let fixture = Fixture::new("10.100.0.0/16");
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
async fn nothing_but_a_destroy_touches_a_guest_that_is_to_be_removed() {
    let fixture = Fixture::new("10.100.0.0/16");
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
    // The guest's own power-off is noticed late.
    store
        .set_desired_state(&web, DesiredState::Stopped)
        .await
        .expect("is no error");
    let guest = store.guest(&web).await.expect("reads").expect("web");
    assert_eq!(guest.desired, DesiredState::Absent);
}

#[tokio::test]
async fn an_operation_ends_once() {
    let fixture = Fixture::new("10.100.0.0/16");
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
async fn forgetting_ends_what_was_running_and_absence_is_success() {
    let fixture = Fixture::new("10.100.0.0/16");
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
async fn facts_about_a_guest_that_is_gone_are_refused() {
    let fixture = Fixture::new("10.100.0.0/16");
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
async fn built_closure_is_cached_until_the_next_build() {
    let fixture = Fixture::new("10.100.0.0/16");
    let flake = Installable::parse("/srv/fleet", "agent").expect("installable");
    let store = &fixture.store;
    assert_eq!(store.cached_closure(&flake).await.expect("reads"), None);
    store
        .cache_closure(&flake, &closure(), "one")
        .await
        .expect("writes");
    store
        .cache_closure(&flake, &closure(), "two")
        .await
        .expect("replaces");

    let fixture = fixture.reopened().await;
    let store = &fixture.store;
    let cached = store
        .cached_closure(&flake)
        .await
        .expect("reads")
        .expect("cached");
    assert_eq!(cached.installable, "/srv/fleet#agent");
    assert_eq!(
        (cached.closure, cached.fingerprint.as_str()),
        (closure(), "two")
    );
}
