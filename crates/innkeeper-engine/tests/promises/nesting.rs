//! Agents with more user ids than one slot, and with the means to run containers.

use std::time::Duration;

use innkeeper_engine::{EngineConfig, EngineError};
use innkeeper_facilities::GuestUserIds;
use innkeeper_facilities::fake::FakeHost;
use innkeeper_model::api::{CreateRequest, ForkRequest, UndeleteRequest};
use innkeeper_model::{Code, Explain, Guest, Limits, Trust, UserIdCount};

use crate::fixture::{Fixture, config, engine_with, fixture, fixture_with_retention, name};

fn ids(count: u32) -> UserIdCount {
    UserIdCount::try_from(count).expect("a number of ids")
}

fn nesting(guest: &str) -> CreateRequest {
    CreateRequest {
        nesting: true,
        ..Fixture::request(guest)
    }
}

impl Fixture {
    async fn guest(&self, guest: &str) -> Guest {
        let found = self.engine.guest(&name(guest)).await;
        found.expect("a guest")
    }

    async fn create_with(&self, request: CreateRequest) -> Result<(), EngineError> {
        let accepted = self.engine.create(request, "test", Trust::Host).await?;
        self.ended(accepted).await;
        Ok(())
    }

    async fn refusal(&self, request: CreateRequest) -> EngineError {
        let refused = self.create_with(request).await.expect_err("refused");
        assert_eq!(self.engine.list().await.expect("listed"), []);
        refused
    }
}

#[tokio::test]
async fn agent_has_the_requested_user_ids() {
    let fixture = fixture();
    fixture.create("plain").await;
    assert_eq!(fixture.guest("plain").await.limits.user_ids.slots(), 1);

    let wide = CreateRequest {
        user_ids: Some(ids(262_144)),
        ..Fixture::request("wide")
    };
    fixture.create_with(wide).await.expect("created");
    let limits = fixture.guest("wide").await.limits;
    assert_eq!((limits.user_ids, limits.nesting), (ids(262_144), false));

    fixture.create("next").await;
    let slots = fixture.engine.slots().await.expect("slots");
    let taken: Vec<_> = (slots.taken.iter())
        .map(|taken| (taken.owner.as_str(), taken.slot.number(), taken.count))
        .collect();
    assert_eq!(taken, [("plain", 1, 1), ("wide", 2, 4), ("next", 6, 1)]);
    assert_eq!(slots.in_use(), 6);
}

#[tokio::test]
async fn nesting_comes_with_user_ids_for_the_containers() {
    let fixture = fixture();
    fixture.create_with(nesting("web")).await.expect("created");
    let limits = fixture.guest("web").await.limits;
    assert_eq!(
        (limits.user_ids, limits.nesting),
        (UserIdCount::FOR_NESTING, true)
    );
    let narrow = CreateRequest {
        user_ids: Some(UserIdCount::MIN),
        ..nesting("narrow")
    };
    fixture.create_with(narrow).await.expect("created");
    assert_eq!(fixture.guest("narrow").await.limits.user_ids.slots(), 1);
}

#[tokio::test]
async fn copies_and_undeleted_agents_keep_user_ids_and_nesting() {
    let fixture = fixture_with_retention(Duration::from_secs(3600));
    let wide = CreateRequest {
        user_ids: Some(ids(524_288)),
        ..nesting("web")
    };
    fixture.create_with(wide).await.expect("created");
    let limits = fixture.guest("web").await.limits;

    let stopped = fixture.engine.stop(&name("web"), "test").await;
    fixture.ended(stopped.expect("accepted")).await;
    let request = ForkRequest {
        name: name("copy"),
        snapshot: None,
    };
    let forked = fixture.engine.fork(&name("web"), request, "test").await;
    fixture.ended(forked.expect("accepted")).await;
    assert_eq!(fixture.guest("copy").await.limits, limits);

    fixture.destroy("web").await;
    let undeleted = fixture
        .engine
        .undelete(&name("web"), UndeleteRequest::default(), "test")
        .await;
    fixture.ended(undeleted.expect("accepted")).await;
    let undeleted = fixture.guest("web").await;
    assert_eq!(undeleted.limits, limits);
    // 1 to 8 were those of the destroyed agent, and 9 to 16 are those of the copy.
    assert_eq!(undeleted.slot.number(), 17);
}

#[tokio::test]
async fn nesting_needs_the_permission_of_the_configuration() {
    let host = FakeHost::new();
    let directory = tempfile::tempdir().expect("tempdir");
    let allowed = Fixture {
        engine: engine_with(&host, directory.path(), config()),
        _directory: directory,
        host: host.clone(),
    };
    allowed.create_with(nesting("web")).await.expect("created");
    let stopped = allowed.engine.stop(&name("web"), "test").await;
    allowed.ended(stopped.expect("accepted")).await;
    allowed.engine.stop_working().await;

    let refusing = EngineConfig {
        nesting: false,
        ..config()
    };
    let engine = engine_with(&host, allowed._directory.path(), refusing);
    let request = ForkRequest {
        name: name("copy"),
        snapshot: None,
    };
    let copy = engine.fork(&name("web"), request, "test").await;
    let created = engine.create(nesting("late"), "test", Trust::Host).await;
    for error in [copy, created].map(|result| result.expect_err("refused")) {
        assert_eq!(error.code(), Code::NestingRefused);
        assert!(error.remedy().expect("a remedy").contains("guest.nesting"));
    }
    // The guest that has it keeps it.
    let started = engine.start(&name("web"), "test").await;
    started.expect("accepted");
}

#[tokio::test]
async fn a_host_without_the_user_ids_refuses_them() {
    let fixture = fixture();
    fixture.host.world().guest_user_ids = Some(GuestUserIds::OneSlot);
    let wide = CreateRequest {
        user_ids: Some(ids(131_072)),
        ..Fixture::request("web")
    };
    let refused = fixture.refusal(wide).await;
    assert_eq!(refused.code(), Code::UserIdsUnsupported);
    assert!(refused.to_string().contains("131072"), "{refused}");

    fixture.host.world().guest_user_ids = Some(GuestUserIds::OfHost);
    let narrow = CreateRequest {
        user_ids: Some(UserIdCount::MIN),
        ..nesting("web")
    };
    let refused = fixture.refusal(narrow).await;
    assert_eq!(refused.code(), Code::NestingRefused);

    let plain = Fixture::request("web");
    fixture.create_with(plain).await.expect("created");
}

#[tokio::test]
async fn guests_of_previews_have_the_default_user_ids_and_no_nesting() {
    let host = FakeHost::new();
    let directory = tempfile::tempdir().expect("tempdir");
    let wide = EngineConfig {
        limits: Limits {
            user_ids: ids(131_072),
            ..config().limits
        },
        ..config()
    };
    let engine = engine_with(&host, directory.path(), wide);
    let closure = innkeeper_facilities::fake::a_closure();
    let created = engine
        .create_preview(&name("shop-7"), &closure, "test")
        .await;
    created.expect("accepted");
    let guest = engine.guest(&name("shop-7")).await.expect("a guest");
    let limits = guest.limits;
    assert_eq!((limits.user_ids, limits.nesting), (ids(131_072), false));
}
