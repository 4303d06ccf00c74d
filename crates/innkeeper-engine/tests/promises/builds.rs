//! Builds and their trust.

use std::time::Duration;

use innkeeper_facilities::ProgressSink;
use innkeeper_facilities::fake::{FakeHost, a_closure};
use innkeeper_model::api::{Accepted, BuildRequest, CreateRequest};
use innkeeper_model::{
    BuildProgress, Code, EventKind, Explain, Failure, OperationId, OperationState, Trust, Verb,
};

use crate::fixture::{Fixture, cancel, engine, fixture, name};

#[tokio::test]
async fn build_is_cached_for_the_next_guest() {
    let fixture = fixture();
    let accepted = fixture
        .engine
        .build(BuildRequest::default(), "test", Trust::Host)
        .await
        .expect("accepted");
    fixture
        .until("the build has ended", async || {
            fixture.host.builds.notify_waiters();
            fixture
                .engine
                .operation(accepted.operation)
                .await
                .expect("there")
                .state
                == OperationState::Done
        })
        .await;
    let request = CreateRequest {
        name: Some(name("web")),
        ..CreateRequest::default()
    };
    let created = fixture
        .engine
        .create(request, "test", Trust::Host)
        .await
        .expect("accepted");
    assert_eq!(
        fixture.ended(created).await.failure,
        None,
        "it needs no second build, which would block"
    );
}

#[tokio::test]
async fn canceled_build_request_still_builds() {
    let fixture = fixture();
    let request = BuildRequest::default();
    cancel(fixture.engine.build(request, "test", Trust::Host)).await;
    fixture
        .until("the build has ended", async || {
            fixture.host.builds.notify_waiters();
            let first = fixture.engine.operation(OperationId(1)).await;
            first.is_ok_and(|build| build.state == OperationState::Done)
        })
        .await;
}

#[tokio::test]
async fn members_may_not_build_local_flakes() {
    let fixture = fixture();
    for flake in [
        "/srv/mine#agent",
        "path:/root/secret",
        "git+file:///root/secret",
        "nixpkgs",
    ] {
        let create = CreateRequest {
            name: Some(name("web")),
            flake: Some(flake.to_owned()),
            ..CreateRequest::default()
        };
        let build = BuildRequest {
            installable: Some(flake.to_owned()),
        };
        for refused in [
            fixture
                .engine
                .create(create, "uid:1000", Trust::Member)
                .await,
            fixture.engine.build(build, "uid:1000", Trust::Member).await,
        ] {
            let error = refused.expect_err(flake);
            assert_eq!(error.code(), Code::FlakeRefused, "{flake}");
            assert!(error.remedy().expect("a remedy").contains("--closure"));
        }
    }
    assert_eq!(fixture.engine.list().await.expect("listed").len(), 0);
    assert!(
        fixture.host.world().calls.is_empty(),
        "no host call was made"
    );
}

#[tokio::test]
async fn restart_keeps_the_trust_of_a_members_build() {
    let directory = tempfile::tempdir().expect("tempdir");
    let host = FakeHost::new();
    let accepted = {
        let killed = engine(&host, directory.path(), Duration::ZERO);
        let request = CreateRequest {
            name: Some(name("web")),
            flake: Some("github:o/r#agent".to_owned()),
            ..CreateRequest::default()
        };
        let accepted = killed.create(request, "uid:1000", Trust::Member).await;
        killed.store().clone().close().await.expect("closed");
        accepted.expect("accepted")
    };
    let fixture = Fixture {
        engine: engine(&host, directory.path(), Duration::ZERO),
        _directory: directory,
        host,
    };
    fixture.engine.restore().await.expect("restored");
    finish_build(&fixture, accepted).await;
    assert_eq!(fixture.host.world().builds, [Trust::Member]);
}

#[tokio::test]
async fn members_builds_are_not_cached_for_the_host() {
    let fixture = fixture();
    for (flake, caller) in [
        (Some("github:o/r#agent"), Trust::Member),
        (Some("github:o/r#agent"), Trust::Host),
        (Some("/fleet#other"), Trust::Member),
        (None, Trust::Member),
    ] {
        let request = CreateRequest {
            flake: flake.map(str::to_owned),
            ..CreateRequest::default()
        };
        let accepted = fixture.engine.create(request, "test", caller).await;
        finish_build(&fixture, accepted.expect("accepted")).await;
    }
    assert_eq!(
        fixture.host.world().builds,
        [Trust::Member, Trust::Host, Trust::Host, Trust::Host],
    );
}

#[tokio::test]
async fn build_with_publishes_the_events_of_a_build() {
    let fixture = fixture();
    let mut live = fixture.engine.journal().subscribe();
    let closure = a_closure();
    let built = closure.clone();
    let work = async move |progress: ProgressSink| {
        progress(BuildProgress::default());
        Ok(("web".to_owned(), built))
    };
    let accepted = fixture
        .engine
        .build_with("test", work)
        .await
        .expect("accepted");
    let mut kinds = Vec::new();
    while !kinds.last().is_some_and(EventKind::is_final) {
        let event = live.recv().await.expect("an event");
        assert_eq!(event.operation, Some(accepted.operation));
        kinds.push(event.kind);
    }
    let verb = Verb::Build;
    let what = "web".to_owned();
    let progress = BuildProgress::default();
    let expected = [
        EventKind::Accepted { verb },
        EventKind::Progress { progress },
        EventKind::Built { what, closure },
        EventKind::Finished,
    ];
    assert_eq!(kinds, expected);

    let failure = Failure::new(Code::PreviewConfigInvalid, "'routes' is missing");
    let fails = failure.clone();
    let work = async move |_: ProgressSink| Err(fails);
    let accepted = fixture
        .engine
        .build_with("test", work)
        .await
        .expect("accepted");
    let ended = fixture.engine.ended_operation(accepted.operation).await;
    assert_eq!(ended.expect("there").failure, Some(failure));
}

/// Releases a build and waits for the end of its operation.
async fn finish_build(fixture: &Fixture, accepted: Accepted) {
    fixture
        .until("the operation has ended", async || {
            fixture.host.builds.notify_waiters();
            let operation = fixture.engine.operation(accepted.operation).await;
            operation.expect("there").state == OperationState::Done
        })
        .await;
}
