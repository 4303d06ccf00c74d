//! Creation, destruction, restart.

use std::time::Duration;

use innkeeper_facilities::fake::FakeHost;
use innkeeper_model::api::CreateRequest;
use innkeeper_model::{EventKind, Failure, GuestState, OperationState, Trust};

use crate::fixture::{Fixture, engine, fixture, name};

#[tokio::test]
async fn create_leaves_nothing_when_a_step_fails() {
    for step in [
        "closure.ensure",
        "rootfs.ensure",
        "secrets.ensure",
        "unit.ensure",
        "network.ensure",
        "unit.release",
    ] {
        let fixture = fixture();
        fixture.host.fail(step, 1);
        let operation = fixture.create("web").await;
        let failure = operation
            .failure
            .unwrap_or_else(|| panic!("{step} did not fail"));
        assert!(failure.message.contains(step), "{step}: {failure:?}");
        assert_eq!(
            fixture.state("web").await,
            None,
            "{step}: the record is gone"
        );
        assert!(fixture.host.world().is_empty(), "{step}: something is left");
    }
}

#[tokio::test]
async fn create_refuses_an_unregistered_closure() {
    let fixture = fixture();
    fixture.host.fail("closure.require_registered", 1);
    let refused = fixture
        .engine
        .create(Fixture::request("web"), "test", Trust::Host)
        .await;
    refused.expect_err("not registered");
    assert_eq!(fixture.engine.list().await.expect("listed").len(), 0);
}

#[tokio::test]
async fn rollback_that_fails_keeps_the_record_and_is_retried() {
    let fixture = fixture();
    fixture.host.fail("unit.release", 1);
    fixture.host.fail("rootfs.remove", 2);
    assert!(fixture.create("web").await.failure.is_some());
    assert!(fixture.host.world().trees.contains_key(&name("web")));
    assert_eq!(
        fixture.state("web").await,
        Some(GuestState::Failed),
        "what is left has an owner"
    );
    fixture
        .until("it is gone", async || fixture.state("web").await.is_none())
        .await;
    assert!(fixture.host.world().is_empty());
}

#[tokio::test]
async fn destroy_continues_after_a_failed_step_and_is_retried() {
    for step in [
        "unit.remove",
        "network.remove",
        "rootfs.remove",
        "closure.remove",
    ] {
        let fixture = fixture();
        assert_eq!(fixture.create("web").await.failure, None);
        fixture.host.fail(step, 1);
        let operation = fixture.destroy("web").await;
        assert!(operation.failure.is_some(), "{step} did not fail");
        {
            let world = fixture.host.world();
            for other in [
                "unit.remove",
                "network.remove",
                "rootfs.remove",
                "closure.remove",
            ] {
                assert!(
                    world.calls.contains(&format!("{other} web")),
                    "{other} was not tried when {step} failed"
                );
            }
        }
        // The engine retries without another request.
        fixture
            .until("it is gone", async || fixture.state("web").await.is_none())
            .await;
        assert!(fixture.host.world().is_empty(), "{step}: something is left");
    }
}

#[tokio::test]
async fn destroy_supersedes_a_create_that_builds() {
    let fixture = fixture();
    let building = CreateRequest {
        name: Some(name("web")),
        ..CreateRequest::default()
    };
    let create = fixture
        .engine
        .create(building, "test", Trust::Host)
        .await
        .expect("accepted");
    assert_eq!(fixture.destroy("web").await.failure, None);
    let superseded = fixture.ended(create).await.failure.expect("was superseded");
    assert_eq!(superseded.code.as_str(), "guest_busy");
    assert!(fixture.host.world().is_empty());
}

#[tokio::test]
async fn restart_resumes_an_unfinished_operation() {
    let directory = tempfile::tempdir().expect("tempdir");
    let host = FakeHost::new();
    let accepted = {
        let first = engine(&host, directory.path(), Duration::ZERO);
        let request = CreateRequest {
            name: Some(name("web")),
            ..CreateRequest::default()
        };
        // The build never ends: dropping the engine is like a crash.
        let accepted = first
            .create(request, "test", Trust::Host)
            .await
            .expect("accepted");
        first.store().clone().close().await.expect("closed");
        accepted
    };
    let fixture = Fixture {
        engine: engine(&host, directory.path(), Duration::ZERO),
        host,
        _directory: directory,
    };
    fixture.engine.restore().await.expect("restored");
    fixture.host.builds.notify_waiters();
    fixture
        .until("the build is released", async || {
            fixture.host.builds.notify_waiters();
            fixture.state("web").await == Some(GuestState::Running)
        })
        .await;
    assert_eq!(fixture.ended(accepted).await.state, OperationState::Done);
}

#[tokio::test]
async fn stopping_engine_refuses_requests() {
    let fixture = fixture();
    fixture.engine.stop_working().await;
    let refused = fixture
        .engine
        .create(Fixture::request("web"), "test", Trust::Host)
        .await
        .expect_err("refused");
    assert_eq!(Failure::from(&refused).code.as_str(), "shutting_down");
}

#[tokio::test]
async fn events_follow_the_order_of_stages() {
    let fixture = fixture();
    let operation = fixture.create("web").await;
    fixture
        .until("the last event is stored", async || {
            events(&fixture, operation.id).await.last() == Some(&"finished".to_owned())
        })
        .await;
    let events = events(&fixture, operation.id).await;
    // Steps of one stage run concurrently; the stages follow each other.
    let at = |what: &str| {
        events
            .iter()
            .position(|line| line == what)
            .unwrap_or_else(|| panic!("{what}: {events:?}"))
    };
    assert_eq!(at("accepted"), 0);
    assert!(at("done ensure-rootfs") < at("started ensure-unit"));
    assert!(at("done ensure-unit") < at("started ensure-network"));
    assert!(at("done ensure-network") < at("started release"));
}

async fn events(fixture: &Fixture, operation: innkeeper_model::OperationId) -> Vec<String> {
    let filter = innkeeper_store::EventFilter {
        after: 0,
        operation: Some(operation),
        guest: None,
        limit: 100,
        newest: false,
    };
    let events = fixture.engine.store().events(filter).await.expect("read");
    let word = |kind: EventKind| match kind {
        EventKind::Accepted { .. } => "accepted".to_owned(),
        EventKind::StepStarted { step } => format!("started {step}"),
        EventKind::StepDone { step, .. } => format!("done {step}"),
        EventKind::Finished => "finished".to_owned(),
        other => format!("{other:?}"),
    };
    events.into_iter().map(|event| word(event.kind)).collect()
}
