//! Files of destroyed agents: kept, brought back, removed.

use std::time::Duration;

use innkeeper_model::api::{GcRequest, RetainedView, UndeleteRequest};
use innkeeper_model::{
    Code, Explain, FileWork, GuestState, Operation, RetainedId, Trust, UnitPhase, Verb,
};

use crate::fake::a_closure;
use crate::promises::{Inn, inn_that_keeps_files, name};

const HOUR: Duration = Duration::from_secs(3600);

/// With a guest `web` whose files are `work`.
async fn keeping() -> Inn {
    let inn = inn_that_keeps_files(HOUR);
    inn.create("web").await;
    inn.write("web", "work");
    inn
}

impl Inn {
    async fn kept(&self) -> Vec<RetainedView> {
        self.engine.retained().await.expect("lists")
    }

    fn kept_files(&self) -> Vec<String> {
        self.host.world().retained.values().cloned().collect()
    }

    async fn undelete(&self, request: UndeleteRequest) -> Operation {
        let accepted = self.engine.undelete(&name("web"), request, "test").await;
        self.end_of(accepted.expect("accepted")).await
    }

    async fn refuse_undelete(&self, request: UndeleteRequest) -> Code {
        let refused = self.engine.undelete(&name("web"), request, "test").await;
        refused.expect_err("refused").code()
    }

    async fn destroy_now(&self, guest: &str) -> Operation {
        let accepted = self.engine.destroy(&name(guest), true, "test").await;
        self.end_of(accepted.expect("accepted")).await
    }

    async fn until_nothing_is_kept(&self) {
        self.until("no files are kept", async || {
            self.kept().await.is_empty() && self.host.world().retained.is_empty()
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
async fn only_the_files_are_kept_and_the_name_is_free_at_once() {
    let inn = keeping().await;
    let taken = inn.engine.slots().await.expect("reads").taken.len();
    assert_eq!(inn.destroy("web").await.failure, None);
    {
        let world = inn.host.world();
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
    assert_eq!(inn.state("web").await, None);
    assert_eq!(
        inn.engine.slots().await.expect("reads").taken.len(),
        taken - 1
    );
    assert_eq!(inn.kept_files(), ["work"]);
    let kept = inn.kept().await;
    assert_eq!(kept[0].retained.name, name("web"));
    assert!((3500..=3600).contains(&kept[0].remaining_seconds));
    inn.until("they are measured", async || {
        inn.kept().await[0].retained.bytes == Some(4)
    })
    .await;

    // Another agent of the name does not disturb them.
    assert_eq!(inn.create("web").await.failure, None);
    assert_eq!(inn.files("web").as_deref(), Some(""));
    assert_eq!(
        inn.refuse_undelete(UndeleteRequest::default()).await,
        Code::GuestExists
    );
    let undeleted = inn.undelete(as_new("old")).await;
    assert_eq!((undeleted.verb, undeleted.failure), (Verb::Undelete, None));
    assert_eq!(inn.files("old").as_deref(), Some("work"));
    assert_eq!(inn.state("old").await, Some(GuestState::Running));
    let old = inn.engine.guest(&name("old")).await.expect("there");
    assert_eq!((old.closure, old.file_work), (Some(a_closure()), None));
    assert!(inn.kept().await.is_empty());
    assert_eq!(
        inn.refuse_undelete(UndeleteRequest::default()).await,
        Code::RetainedNotFound
    );
}

#[tokio::test]
async fn of_several_the_newest_comes_back_or_the_one_with_the_number() {
    let inn = inn_that_keeps_files(HOUR);
    for files in ["first", "second", "third"] {
        inn.create("web").await;
        inn.write("web", files);
        inn.destroy("web").await;
    }
    let kept = inn.kept().await;
    assert_eq!(inn.undelete(UndeleteRequest::default()).await.failure, None);
    assert_eq!(inn.files("web").as_deref(), Some("third"));
    let first = UndeleteRequest {
        new_name: Some(name("one")),
        id: Some(kept[0].retained.id),
    };
    assert_eq!(inn.undelete(first).await.failure, None);
    assert_eq!(inn.files("one").as_deref(), Some("first"));
    let gone = UndeleteRequest {
        new_name: Some(name("two")),
        id: Some(RetainedId(99)),
    };
    assert_eq!(inn.refuse_undelete(gone).await, Code::RetainedNotFound);
    assert_eq!(inn.kept_files(), ["second"]);
}

#[tokio::test]
async fn nothing_is_kept_of_previews_with_now_or_without_a_time() {
    let inn = keeping().await;
    assert_eq!(inn.destroy_now("web").await.failure, None);
    let preview = inn
        .engine
        .create_preview(&name("pr-7"), &a_closure(), "test")
        .await;
    inn.end_of(preview.expect("accepted")).await;
    assert_eq!(inn.destroy("pr-7").await.failure, None);
    assert!(inn.host.world().is_empty());
    assert!(inn.kept().await.is_empty());

    let inn = crate::promises::inn();
    inn.create("web").await;
    assert_eq!(inn.destroy("web").await.failure, None);
    assert!(inn.host.world().is_empty());
    assert!(inn.kept().await.is_empty());
}

#[tokio::test]
async fn files_that_cannot_be_kept_do_not_stop_a_removal() {
    for call in ["rootfs.open", "secrets.withdraw", "rootfs.retain"] {
        let inn = keeping().await;
        inn.host.fail(call, 1);
        assert_eq!(inn.destroy("web").await.failure, None, "{call}");
        inn.until_nothing_is_kept().await;
        assert!(inn.host.world().is_empty(), "{call}");
    }
    // Nor a lack of space: somebody who destroys a guest wants some.
    let inn = keeping().await;
    inn.host.world().room = Some(1);
    assert_eq!(inn.destroy("web").await.failure, None);
    inn.until_nothing_is_kept().await;
    assert!(inn.host.world().is_empty());
}

#[tokio::test]
async fn a_failure_in_any_step_of_an_undelete_loses_nothing() {
    for step in [
        "closure.ensure",
        "rootfs.ensure",
        "secrets.ensure",
        "unit.ensure",
        "unit.release",
    ] {
        let inn = keeping().await;
        inn.destroy("web").await;
        inn.host.fail(step, 1);
        let failure = inn.undelete(UndeleteRequest::default()).await.failure;
        assert!(failure.expect(step).message.contains(step));
        assert_eq!(inn.state("web").await, Some(GuestState::Stopped), "{step}");
        let started = inn
            .engine
            .start(&name("web"), "test")
            .await
            .expect("accepted");
        assert_eq!(inn.end_of(started).await.failure, None, "{step}");
        assert_eq!(inn.files("web").as_deref(), Some("work"), "{step}");
        assert!(inn.kept().await.is_empty(), "{step}");
    }
}

#[tokio::test]
async fn an_agent_that_was_not_brought_back_can_be_destroyed_again() {
    for (now, step) in [
        (false, "rootfs.ensure"),
        (true, "rootfs.ensure"),
        (false, "unit.ensure"),
    ] {
        let inn = keeping().await;
        inn.destroy("web").await;
        inn.host.fail(step, 1);
        assert!(
            inn.undelete(UndeleteRequest::default())
                .await
                .failure
                .is_some()
        );
        let waits = inn
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
            true => inn.destroy_now("web").await,
            false => inn.destroy("web").await,
        };
        assert_eq!(destroyed.failure, None, "{step}");
        if now {
            inn.until_nothing_is_kept().await;
            assert!(inn.host.world().is_empty());
            continue;
        }
        assert_eq!(inn.kept_files(), ["work"], "{step}");
        assert_eq!(inn.kept().await.len(), 1);
        assert_eq!(inn.undelete(UndeleteRequest::default()).await.failure, None);
        assert_eq!(inn.files("web").as_deref(), Some("work"));
    }
}

#[tokio::test]
async fn files_go_at_the_end_of_their_time_and_not_before() {
    let inn = keeping().await;
    inn.engine
        .store()
        .set_expiry_grace(Duration::ZERO)
        .await
        .expect("set");
    inn.destroy("web").await;
    let watching = inn.engine.clone();
    tokio::spawn(async move { watching.watch(Duration::from_millis(10)).await });
    let advance = async |time| {
        let advanced = inn.engine.store().advance_running_time(time).await;
        advanced.expect("advanced");
    };
    advance(HOUR - Duration::from_secs(60)).await;
    // A whole round of the watch, which another removal ends with.
    inn.create("db").await;
    inn.destroy("db").await;
    assert_eq!(inn.kept_files().len(), 2);
    advance(Duration::from_secs(61)).await;
    inn.until("the first is gone", async || inn.kept_files().len() == 1)
        .await;
    assert_eq!(inn.kept().await[0].retained.name, name("db"));
    advance(HOUR).await;
    inn.until_nothing_is_kept().await;
    assert!(inn.host.world().is_empty());
}

#[tokio::test]
async fn a_removal_that_fails_is_tried_again_and_nothing_is_brought_back_meanwhile() {
    let inn = keeping().await;
    inn.destroy("web").await;
    let id = inn.kept().await[0].retained.id;
    inn.host.fail("rootfs.remove_retained", 1);
    let purge = inn.engine.purge(id, "test").await.expect("accepted");
    let purge = inn.end_of(purge).await;
    assert_eq!(purge.verb, Verb::Purge);
    assert!(purge.failure.is_some());
    assert_eq!(
        inn.refuse_undelete(UndeleteRequest::default()).await,
        Code::RetainedNotFound
    );
    inn.engine.restore().await.expect("restores");
    inn.until_nothing_is_kept().await;
    let again = inn.engine.purge(id, "test").await;
    assert_eq!(again.expect_err("refused").code(), Code::RetainedNotFound);
}

/// Returns an engine without room for another tree: `three` runs, the files of `one` and `two` are retained.
async fn full_of_retained_files() -> Inn {
    let inn = inn_that_keeps_files(HOUR);
    for guest in ["one", "two", "three"] {
        inn.create(guest).await;
        inn.write(guest, guest);
    }
    for guest in ["one", "two"] {
        inn.destroy(guest).await;
    }
    inn.host.world().room = Some(3);
    inn
}

#[tokio::test]
async fn oldest_files_are_purged_when_space_is_needed() {
    let inn = full_of_retained_files().await;
    assert_eq!(inn.create("four").await.failure, None);
    assert_eq!(inn.kept_files(), ["two"]);
    let snapshot = inn
        .engine
        .snapshot(&name("three"), Default::default(), "test")
        .await;
    let taken = inn.end_of(snapshot.expect("accepted").accepted).await;
    assert_eq!(taken.failure, None);
    assert!(inn.kept_files().is_empty());
    // No retained files are left to purge.
    inn.create("five").await;
    let refused = inn.create("six").await.failure.expect("no room");
    assert_eq!(refused.code, Code::DiskFull);
    for guest in ["three", "four"] {
        assert_eq!(inn.state(guest).await, Some(GuestState::Running));
    }
}

/// The periodic maintenance is in the middle of a purge when a create finds the disk full.
#[tokio::test]
async fn concurrent_needs_for_space_purge_one_tree() {
    let inn = full_of_retained_files().await;
    let called = |call: &str| {
        let world = inn.host.world();
        world.calls.iter().filter(|one| *one == call).count()
    };
    let removals = std::sync::Arc::clone(&inn.host.removals);
    let blocked = removals.write().await;
    inn.engine.restore().await.expect("restores");
    inn.until("the maintenance purges", async || {
        called("rootfs.remove_retained") == 1
    })
    .await;
    let create = inn.engine.create(Inn::request("four"), "test", Trust::Host);
    let create = create.await.expect("accepted");
    inn.until("the create has found the disk full", async || {
        called("rootfs.ensure four") == 1
    })
    .await;
    drop(blocked);
    assert_eq!(inn.end_of(create).await.failure, None);
    assert_eq!(inn.kept_files(), ["two"]);
    assert_eq!(called("rootfs.remove_retained"), 1);
    assert_eq!(called("rootfs.ensure four"), 2);
}

#[tokio::test]
async fn gc_and_doctor_know_which_files_are_kept() {
    let inn = keeping().await;
    inn.destroy("web").await;
    inn.until("they are measured", async || {
        inn.kept().await[0].retained.bytes.is_some()
    })
    .await;
    inn.host
        .world()
        .retained
        .insert(RetainedId(99), "lost".to_owned());
    let swept = inn.engine.gc(GcRequest::default()).await.expect("swept");
    let objects: Vec<_> = swept
        .orphans
        .iter()
        .map(|one| one.object.as_str())
        .collect();
    assert_eq!(objects, ["retained-99"]);
    assert_eq!(inn.kept_files(), ["work"]);
    let findings = async || {
        let report = inn.engine.doctor().await.expect("looks");
        let findings = report.checks.into_iter().map(|check| check.finding);
        findings.collect::<Vec<_>>().join("\n")
    };
    assert!(findings().await.contains("files of 1 are kept"));
    inn.host.world().retained.clear();
    assert!(findings().await.contains("of web are gone from the host"));
    assert_eq!(
        inn.refuse_undelete(UndeleteRequest::default()).await,
        Code::RetainedNotFound
    );
}

#[tokio::test]
async fn a_guest_that_still_has_processes_keeps_its_files_in_place() {
    let inn = keeping().await;
    inn.host.fail("unit.remove", 1);
    assert!(inn.destroy("web").await.failure.is_some());
    inn.until("it is gone", async || inn.state("web").await.is_none())
        .await;
    assert_eq!(inn.kept_files(), ["work"]);
    let world = inn.host.world();
    let retained = world
        .calls
        .iter()
        .filter(|call| *call == "rootfs.retain web");
    assert_eq!(retained.count(), 1);
    assert_eq!(world.units.get(&name("web")), None::<&UnitPhase>);
}
