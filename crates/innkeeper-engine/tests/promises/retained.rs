//! Retained files of destroyed agents: undeleted, purged, expired.

use std::time::Duration;

use innkeeper_facilities::fake::a_closure;
use innkeeper_model::api::{GcRequest, RetainedView, UndeleteRequest};
use innkeeper_model::{
    Code, Explain, FileWork, GuestState, Operation, RetainedId, Trust, UnitPhase, Verb,
};

use crate::fixture::{Fixture, cancel, fixture_with_retention, name};

const HOUR: Duration = Duration::from_secs(3600);

/// Returns an engine with a guest `web` whose files are `work`.
async fn fixture_with_web() -> Fixture {
    let fixture = fixture_with_retention(HOUR);
    fixture.create("web").await;
    fixture.write("web", "work");
    fixture
}

impl Fixture {
    async fn retained(&self) -> Vec<RetainedView> {
        self.engine.retained().await.expect("lists")
    }

    fn retained_files(&self) -> Vec<String> {
        self.host.world().retained.values().cloned().collect()
    }

    async fn undelete(&self, request: UndeleteRequest) -> Operation {
        let accepted = self.engine.undelete(&name("web"), request, "test").await;
        self.ended(accepted.expect("accepted")).await
    }

    async fn refuse_undelete(&self, request: UndeleteRequest) -> Code {
        let refused = self.engine.undelete(&name("web"), request, "test").await;
        refused.expect_err("refused").code()
    }

    async fn destroy_now(&self, guest: &str) -> Operation {
        let accepted = self.engine.destroy(&name(guest), true, "test").await;
        self.ended(accepted.expect("accepted")).await
    }

    async fn until_nothing_is_retained(&self) {
        self.until("no files are retained", async || {
            self.retained().await.is_empty() && self.host.world().retained.is_empty()
        })
        .await;
    }
}

fn as_new(guest: &str) -> UndeleteRequest {
    UndeleteRequest {
        new_name: Some(name(guest)),
        id: None,
    }
}

#[tokio::test]
async fn destroy_retains_the_files_and_frees_the_name() {
    let fixture = fixture_with_web().await;
    let taken = fixture.engine.slots().await.expect("reads").taken.len();
    assert_eq!(fixture.destroy("web").await.failure, None);
    {
        let world = fixture.host.world();
        assert!(world.trees.is_empty() && world.roots.is_empty());
        assert!(world.links.is_empty() && world.units.is_empty());
        let at = |call: &str| {
            world
                .calls
                .iter()
                .position(|one| one == call)
                .expect("called")
        };
        assert!(at("unit.remove web") < at("secrets.withdraw web"));
        assert!(at("secrets.withdraw web") < at("rootfs.retain web"));
    }
    assert_eq!(fixture.state("web").await, None);
    assert_eq!(
        fixture.engine.slots().await.expect("reads").taken.len(),
        taken - 1
    );
    assert_eq!(fixture.retained_files(), ["work"]);
    let retained = fixture.retained().await;
    assert_eq!(retained[0].retained.name, name("web"));
    assert!((3500..=3600).contains(&retained[0].remaining_seconds));
    fixture
        .until("the files are measured", async || {
            fixture.retained().await[0].retained.bytes == Some(4)
        })
        .await;

    // A new agent of that name does not affect the retained files.
    assert_eq!(fixture.create("web").await.failure, None);
    assert_eq!(fixture.files("web").as_deref(), Some(""));
    assert_eq!(
        fixture.refuse_undelete(UndeleteRequest::default()).await,
        Code::GuestExists
    );
    let undeleted = fixture.undelete(as_new("old")).await;
    assert_eq!((undeleted.verb, undeleted.failure), (Verb::Undelete, None));
    assert_eq!(fixture.files("old").as_deref(), Some("work"));
    assert_eq!(fixture.state("old").await, Some(GuestState::Running));
    let old = fixture.engine.guest(&name("old")).await.expect("there");
    assert_eq!((old.closure, old.file_work), (Some(a_closure()), None));
    assert!(fixture.retained().await.is_empty());
    assert_eq!(
        fixture.refuse_undelete(UndeleteRequest::default()).await,
        Code::RetainedNotFound
    );
}

#[tokio::test]
async fn undelete_returns_the_newest_or_the_requested_files() {
    let fixture = fixture_with_retention(HOUR);
    for files in ["first", "second", "third"] {
        fixture.create("web").await;
        fixture.write("web", files);
        fixture.destroy("web").await;
    }
    let retained = fixture.retained().await;
    assert_eq!(
        fixture.undelete(UndeleteRequest::default()).await.failure,
        None
    );
    assert_eq!(fixture.files("web").as_deref(), Some("third"));
    let first = UndeleteRequest {
        new_name: Some(name("one")),
        id: Some(retained[0].retained.id),
    };
    assert_eq!(fixture.undelete(first).await.failure, None);
    assert_eq!(fixture.files("one").as_deref(), Some("first"));
    let gone = UndeleteRequest {
        new_name: Some(name("two")),
        id: Some(RetainedId(99)),
    };
    assert_eq!(fixture.refuse_undelete(gone).await, Code::RetainedNotFound);
    assert_eq!(fixture.retained_files(), ["second"]);
}

#[tokio::test]
async fn previews_and_immediate_destroys_retain_nothing() {
    let fixture = fixture_with_web().await;
    assert_eq!(fixture.destroy_now("web").await.failure, None);
    let preview = fixture
        .engine
        .create_preview(&name("pr-7"), &a_closure(), "test")
        .await;
    fixture.ended(preview.expect("accepted")).await;
    assert_eq!(fixture.destroy("pr-7").await.failure, None);
    assert!(fixture.host.world().is_empty());
    assert!(fixture.retained().await.is_empty());

    let fixture = crate::fixture::fixture();
    fixture.create("web").await;
    assert_eq!(fixture.destroy("web").await.failure, None);
    assert!(fixture.host.world().is_empty());
    assert!(fixture.retained().await.is_empty());
}

#[tokio::test]
async fn destroy_succeeds_when_files_cannot_be_retained() {
    for call in ["rootfs.open", "secrets.withdraw", "rootfs.retain"] {
        let fixture = fixture_with_web().await;
        fixture.host.fail(call, 1);
        assert_eq!(fixture.destroy("web").await.failure, None, "{call}");
        fixture.until_nothing_is_retained().await;
        assert!(fixture.host.world().is_empty(), "{call}");
    }
    // A lack of space does not block it either: a destroy is meant to free space.
    let fixture = fixture_with_web().await;
    fixture.host.world().room = Some(1);
    assert_eq!(fixture.destroy("web").await.failure, None);
    fixture.until_nothing_is_retained().await;
    assert!(fixture.host.world().is_empty());
}

#[tokio::test]
async fn undelete_loses_no_files_when_a_step_fails() {
    for step in [
        "closure.ensure",
        "rootfs.ensure",
        "secrets.ensure",
        "unit.ensure",
        "unit.release",
    ] {
        let fixture = fixture_with_web().await;
        fixture.destroy("web").await;
        fixture.host.fail(step, 1);
        let failure = fixture.undelete(UndeleteRequest::default()).await.failure;
        assert!(failure.expect(step).message.contains(step));
        assert_eq!(
            fixture.state("web").await,
            Some(GuestState::Stopped),
            "{step}"
        );
        let started = fixture
            .engine
            .start(&name("web"), "test")
            .await
            .expect("accepted");
        assert_eq!(fixture.ended(started).await.failure, None, "{step}");
        assert_eq!(fixture.files("web").as_deref(), Some("work"), "{step}");
        assert!(fixture.retained().await.is_empty(), "{step}");
    }
}

#[tokio::test]
async fn failed_undelete_can_be_destroyed_again() {
    for (now, step) in [
        (false, "rootfs.ensure"),
        (true, "rootfs.ensure"),
        (false, "unit.ensure"),
    ] {
        let fixture = fixture_with_web().await;
        fixture.destroy("web").await;
        fixture.host.fail(step, 1);
        assert!(
            fixture
                .undelete(UndeleteRequest::default())
                .await
                .failure
                .is_some()
        );
        let waits = fixture
            .engine
            .guest(&name("web"))
            .await
            .expect("there")
            .file_work;
        assert_eq!(
            matches!(waits, Some(FileWork::Adopt(_))),
            step == "rootfs.ensure"
        );
        let destroyed = match now {
            true => fixture.destroy_now("web").await,
            false => fixture.destroy("web").await,
        };
        assert_eq!(destroyed.failure, None, "{step}");
        if now {
            fixture.until_nothing_is_retained().await;
            assert!(fixture.host.world().is_empty());
            continue;
        }
        assert_eq!(fixture.retained_files(), ["work"], "{step}");
        assert_eq!(fixture.retained().await.len(), 1);
        assert_eq!(
            fixture.undelete(UndeleteRequest::default()).await.failure,
            None
        );
        assert_eq!(fixture.files("web").as_deref(), Some("work"));
    }
}

#[tokio::test]
async fn files_expire_after_the_retention_time() {
    let fixture = fixture_with_web().await;
    fixture
        .engine
        .store()
        .set_expiry_grace(Duration::ZERO)
        .await
        .expect("set");
    fixture.destroy("web").await;
    let watching = fixture.engine.clone();
    tokio::spawn(async move { watching.watch(Duration::from_millis(10)).await });
    let advance = async |time| {
        let advanced = fixture.engine.store().advance_running_time(time).await;
        advanced.expect("advanced");
    };
    advance(HOUR - Duration::from_secs(60)).await;
    // The destroy triggers a maintenance, and the watch has run several meanwhile.
    fixture.create("db").await;
    fixture.destroy("db").await;
    assert_eq!(fixture.retained_files().len(), 2);
    advance(Duration::from_secs(61)).await;
    fixture
        .until("the first is gone", async || {
            fixture.retained_files().len() == 1
        })
        .await;
    assert_eq!(fixture.retained().await[0].retained.name, name("db"));
    advance(HOUR).await;
    fixture.until_nothing_is_retained().await;
    assert!(fixture.host.world().is_empty());
}

#[tokio::test]
async fn failed_purge_is_retried_and_blocks_undelete() {
    let fixture = fixture_with_web().await;
    fixture.destroy("web").await;
    let id = fixture.retained().await[0].retained.id;
    fixture.host.fail("rootfs.remove_retained", 1);
    let purge = fixture.engine.purge(id, "test").await.expect("accepted");
    let purge = fixture.ended(purge).await;
    assert_eq!(purge.verb, Verb::Purge);
    assert!(purge.failure.is_some());
    assert_eq!(
        fixture.refuse_undelete(UndeleteRequest::default()).await,
        Code::RetainedNotFound
    );
    fixture.engine.restore().await.expect("restores");
    fixture.until_nothing_is_retained().await;
    let again = fixture.engine.purge(id, "test").await;
    assert_eq!(again.expect_err("refused").code(), Code::RetainedNotFound);
}

/// Returns an engine without room for another tree: `three` runs, the files of `one` and `two` are retained.
async fn full_of_retained_files() -> Fixture {
    let fixture = fixture_with_retention(HOUR);
    for guest in ["one", "two", "three"] {
        fixture.create(guest).await;
        fixture.write(guest, guest);
    }
    for guest in ["one", "two"] {
        fixture.destroy(guest).await;
    }
    fixture.host.world().room = Some(3);
    fixture
}

#[tokio::test]
async fn oldest_files_are_purged_when_space_is_needed() {
    let fixture = full_of_retained_files().await;
    assert_eq!(fixture.create("four").await.failure, None);
    assert_eq!(fixture.retained_files(), ["two"]);
    let snapshot = fixture
        .engine
        .snapshot(&name("three"), Default::default(), "test")
        .await;
    let taken = fixture.ended(snapshot.expect("accepted").accepted).await;
    assert_eq!(taken.failure, None);
    assert!(fixture.retained_files().is_empty());
    // No retained files are left to purge.
    fixture.create("five").await;
    let refused = fixture.create("six").await.failure.expect("no room");
    assert_eq!(refused.code, Code::DiskFull);
    for guest in ["three", "four"] {
        assert_eq!(fixture.state(guest).await, Some(GuestState::Running));
    }
}

/// The periodic maintenance is in the middle of a purge when a create finds the disk full.
#[tokio::test]
async fn concurrent_needs_for_space_purge_one_tree() {
    let fixture = full_of_retained_files().await;
    let called = |call: &str| {
        let world = fixture.host.world();
        world.calls.iter().filter(|one| *one == call).count()
    };
    let removals = std::sync::Arc::clone(&fixture.host.removals);
    let blocked = removals.write().await;
    fixture.engine.restore().await.expect("restores");
    fixture
        .until("the maintenance purges", async || {
            called("rootfs.remove_retained") == 1
        })
        .await;
    let create = fixture
        .engine
        .create(Fixture::request("four"), "test", Trust::Host);
    let create = create.await.expect("accepted");
    fixture
        .until("the create has found the disk full", async || {
            called("rootfs.ensure four") == 1
        })
        .await;
    drop(blocked);
    assert_eq!(fixture.ended(create).await.failure, None);
    assert_eq!(fixture.retained_files(), ["two"]);
    assert_eq!(called("rootfs.remove_retained"), 1);
    assert_eq!(called("rootfs.ensure four"), 2);
}

#[tokio::test]
async fn canceled_request_does_not_abandon_a_purge() {
    let fixture = full_of_retained_files().await;
    let removals = std::sync::Arc::clone(&fixture.host.removals);
    let blocked = removals.write().await;
    let engine = fixture.engine.clone();
    let request = tokio::spawn(async move {
        let request = Default::default();
        drop(engine.snapshot(&name("three"), request, "test").await);
    });
    fixture
        .until("the request purges", async || {
            let world = fixture.host.world();
            world
                .calls
                .iter()
                .any(|call| call == "rootfs.remove_retained")
        })
        .await;
    request.abort();
    assert!(request.await.expect_err("canceled").is_cancelled());
    drop(blocked);
    fixture
        .until("the purge has ended", async || {
            fixture.retained().await.len() == 1
        })
        .await;
    assert_eq!(fixture.retained_files(), ["two"]);
}

#[tokio::test]
async fn canceled_purge_request_still_purges() {
    let fixture = full_of_retained_files().await;
    let id = fixture.retained().await[0].retained.id;
    cancel(fixture.engine.purge(id, "test")).await;
    fixture
        .until("the purge has ended", async || {
            fixture.retained().await.len() == 1
        })
        .await;
    assert_eq!(fixture.retained_files(), ["two"]);
}

#[tokio::test]
async fn gc_and_doctor_compare_retained_files_with_records() {
    let fixture = fixture_with_web().await;
    fixture.destroy("web").await;
    fixture
        .until("the files are measured", async || {
            fixture.retained().await[0].retained.bytes.is_some()
        })
        .await;
    fixture
        .host
        .world()
        .retained
        .insert(RetainedId(99), "lost".to_owned());
    let swept = fixture
        .engine
        .gc(GcRequest::default())
        .await
        .expect("swept");
    let objects: Vec<_> = swept
        .orphans
        .iter()
        .map(|one| one.object.as_str())
        .collect();
    assert_eq!(objects, ["retained-99"]);
    assert_eq!(fixture.retained_files(), ["work"]);
    let findings = async || {
        let report = fixture.engine.doctor().await.expect("checks");
        let findings = report.checks.into_iter().map(|check| check.finding);
        findings.collect::<Vec<_>>().join("\n")
    };
    assert!(findings().await.contains("files of 1 are kept"));
    fixture.host.world().retained.clear();
    assert!(findings().await.contains("of web are gone from the host"));
    assert_eq!(
        fixture.refuse_undelete(UndeleteRequest::default()).await,
        Code::RetainedNotFound
    );
}

#[tokio::test]
async fn files_are_retained_only_after_the_processes_are_gone() {
    let fixture = fixture_with_web().await;
    fixture.host.fail("unit.remove", 1);
    assert!(fixture.destroy("web").await.failure.is_some());
    fixture
        .until("it is gone", async || fixture.state("web").await.is_none())
        .await;
    assert_eq!(fixture.retained_files(), ["work"]);
    let world = fixture.host.world();
    let retained = world
        .calls
        .iter()
        .filter(|call| *call == "rootfs.retain web");
    assert_eq!(retained.count(), 1);
    assert_eq!(world.units.get(&name("web")), None::<&UnitPhase>);
}
