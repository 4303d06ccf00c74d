//! What is promised, one test each.

use std::path::Path;
use std::time::Duration;

use innkeeper_engine::{Engine, EngineConfig};
use innkeeper_facilities::{Found, ProgressSink};
use innkeeper_model::api::{Accepted, BuildRequest, CreateRequest, GcRequest, Verdict};
use innkeeper_model::{
    BuildProgress, Code, Cpus, DesiredState, EventKind, Explain, Failure, GuestName, GuestState,
    Installable, Limits, MemorySize, Operation, OperationState, Ownership, SlotRange, Trust,
    UnitPhase, Verb,
};
use innkeeper_store::Store;

use crate::fake::{FakeHost, a_closure};

pub(crate) struct Inn {
    _directory: tempfile::TempDir,
    pub(crate) host: FakeHost,
    pub(crate) engine: Engine,
}

fn engine(host: &FakeHost, directory: &Path, retention: Duration) -> Engine {
    let store = Store::open(&directory.join("db"), SlotRange::default()).expect("opens");
    let config = EngineConfig {
        installable: Some(Installable::parse("/fleet#agent", "x").expect("valid")),
        attribute: "agent".to_owned(),
        limits: Limits {
            memory: MemorySize::from_bytes(1 << 30),
            cpus: Cpus::from_percent(100),
            tasks: 100,
        },
        concurrent_starts: 2,
        range: SlotRange::default(),
        retention,
    };
    Engine::new(config, store, host.facilities(), None)
}

/// Keeps no files of destroyed guests.
pub(crate) fn inn() -> Inn {
    inn_that_keeps_files(Duration::ZERO)
}

pub(crate) fn inn_that_keeps_files(retention: Duration) -> Inn {
    let directory = tempfile::tempdir().expect("tempdir");
    let host = FakeHost::new();
    let engine = engine(&host, directory.path(), retention);
    Inn {
        _directory: directory,
        host,
        engine,
    }
}

impl Inn {
    pub(crate) fn request(name: &str) -> CreateRequest {
        CreateRequest {
            name: Some(self::name(name)),
            closure: Some(a_closure()),
            ..CreateRequest::default()
        }
    }

    pub(crate) async fn end_of(&self, accepted: Accepted) -> Operation {
        let mut news = self.engine.journal().subscribe();
        loop {
            let operation = self
                .engine
                .operation(accepted.operation)
                .await
                .expect("there");
            if operation.state != OperationState::Running {
                return operation;
            }
            drop(
                tokio::time::timeout(Duration::from_secs(10), news.recv())
                    .await
                    .expect("news"),
            );
        }
    }

    pub(crate) async fn create(&self, name: &str) -> Operation {
        let accepted = self
            .engine
            .create(Self::request(name), "test", Trust::Host)
            .await
            .expect("accepted");
        self.end_of(accepted).await
    }

    pub(crate) async fn destroy(&self, name: &str) -> Operation {
        let accepted = self
            .engine
            .destroy(&self::name(name), false, "test")
            .await
            .expect("accepted");
        self.end_of(accepted).await
    }

    pub(crate) async fn state(&self, name: &str) -> Option<GuestState> {
        let guests = self.engine.list().await.expect("listed");
        guests
            .iter()
            .find(|view| view.guest.name.as_str() == name)
            .map(|view| view.state)
    }

    #[expect(clippy::panic, reason = "a test fails with a panic")]
    pub(crate) async fn until(&self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        for _ in 0..1000 {
            if condition().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("waited in vain until {what}");
    }
}

pub(crate) fn name(text: &str) -> GuestName {
    GuestName::parse(text).expect("valid")
}

#[tokio::test]
async fn a_failure_in_any_step_of_a_create_leaves_nothing() {
    for step in [
        "closure.ensure",
        "rootfs.ensure",
        "secrets.ensure",
        "unit.ensure",
        "network.ensure",
        "unit.release",
    ] {
        let inn = inn();
        inn.host.fail(step, 1);
        let operation = inn.create("web").await;
        let failure = operation
            .failure
            .unwrap_or_else(|| panic!("{step} did not fail"));
        assert!(failure.message.contains(step), "{step}: {failure:?}");
        assert_eq!(inn.state("web").await, None, "{step}: the record is gone");
        assert!(inn.host.world().is_empty(), "{step}: something is left");
    }
}

#[tokio::test]
async fn a_failure_in_any_step_of_a_destroy_goes_on_with_the_others_and_is_made_good_later() {
    for step in [
        "unit.remove",
        "network.remove",
        "rootfs.remove",
        "closure.remove",
    ] {
        let inn = inn();
        assert_eq!(inn.create("web").await.failure, None);
        inn.host.fail(step, 1);
        let operation = inn.destroy("web").await;
        assert!(operation.failure.is_some(), "{step} did not fail");
        {
            let world = inn.host.world();
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
        // Nobody asks again: the engine keeps the promise by itself.
        inn.until("it is gone", async || inn.state("web").await.is_none())
            .await;
        assert!(inn.host.world().is_empty(), "{step}: something is left");
    }
}

#[tokio::test]
async fn a_rollback_that_fails_keeps_the_record_until_all_is_gone() {
    let inn = inn();
    inn.host.fail("unit.release", 1);
    inn.host.fail("rootfs.remove", 2);
    assert!(inn.create("web").await.failure.is_some());
    assert!(inn.host.world().trees.contains_key(&name("web")));
    assert_eq!(
        inn.state("web").await,
        Some(GuestState::Failed),
        "what is left has an owner"
    );
    inn.until("it is gone", async || inn.state("web").await.is_none())
        .await;
    assert!(inn.host.world().is_empty());
}

#[tokio::test]
async fn a_destroy_takes_over_from_a_create_that_builds() {
    let inn = inn();
    let building = CreateRequest {
        name: Some(name("web")),
        ..CreateRequest::default()
    };
    let create = inn
        .engine
        .create(building, "test", Trust::Host)
        .await
        .expect("accepted");
    assert_eq!(inn.destroy("web").await.failure, None);
    let superseded = inn
        .end_of(create)
        .await
        .failure
        .expect("did not end as asked");
    assert_eq!(superseded.code.as_str(), "guest_busy");
    assert!(inn.host.world().is_empty());
}

#[tokio::test]
async fn an_unfinished_operation_goes_on_with_the_next_engine() {
    let directory = tempfile::tempdir().expect("tempdir");
    let host = FakeHost::new();
    let accepted = {
        let first = engine(&host, directory.path(), Duration::ZERO);
        let request = CreateRequest {
            name: Some(name("web")),
            ..CreateRequest::default()
        };
        // It waits for a build that never ends, until the runtime drops it: as good as a crash.
        let accepted = first
            .create(request, "test", Trust::Host)
            .await
            .expect("accepted");
        first.store().clone().close().await.expect("closed");
        accepted
    };
    let inn = Inn {
        engine: engine(&host, directory.path(), Duration::ZERO),
        host,
        _directory: directory,
    };
    inn.engine.restore().await.expect("restored");
    inn.host.builds.notify_waiters();
    inn.until("the build is let through", async || {
        inn.host.builds.notify_waiters();
        inn.state("web").await == Some(GuestState::Running)
    })
    .await;
    assert_eq!(inn.end_of(accepted).await.state, OperationState::Done);
}

#[tokio::test]
async fn guests_that_end_are_restarted_or_left_alone_as_they_ended() {
    let inn = inn();
    let watcher = inn.engine.clone();
    tokio::spawn(async move { watcher.watch(Duration::from_secs(3600)).await });
    tokio::task::yield_now().await;
    for (name, status) in [("reboots", UnitPhase::REBOOT), ("crashes", 1)] {
        inn.create(name).await;
        inn.host.end(&self::name(name), status);
        inn.until("it runs again", async || {
            inn.host.world().units.get(&self::name(name)) == Some(&UnitPhase::Running)
        })
        .await;
    }
    inn.create("halts").await;
    inn.host.end(&name("halts"), 0);
    inn.until("it rests", async || {
        inn.state("halts").await == Some(GuestState::Stopped)
    })
    .await;
    let guest = inn.engine.guest(&name("halts")).await.expect("there");
    assert_eq!(guest.desired, DesiredState::Stopped);
}

#[tokio::test]
async fn the_firewall_and_running_guests_follow_the_host() {
    let inn = inn();
    inn.create("runs").await;
    inn.create("rests").await;
    inn.host.end_quietly(&name("rests"), 0);
    let watcher = inn.engine.clone();
    tokio::spawn(async move { watcher.watch(Duration::from_secs(3600)).await });
    // A guest that cannot follow in one way follows in the other, and keeps nobody else from it.
    inn.host.fail("network.follow_uplink", 1);
    for _ in 0..2 {
        inn.host.world().calls.clear();
        inn.host.facts.notify_one();
        inn.until("they have followed", async || {
            let calls = inn.host.world().calls.clone();
            calls
                .last()
                .is_some_and(|call| call == "secrets.follow_host runs")
        })
        .await;
        let calls = inn.host.world().calls.clone();
        assert_eq!(
            calls,
            [
                "firewall.ensure",
                "network.follow_uplink runs",
                "secrets.follow_host runs"
            ]
        );
    }
}

#[tokio::test]
async fn a_guest_that_was_powered_off_while_nobody_listened_stays_off() {
    let inn = inn();
    inn.create("halts").await;
    inn.create("crashes").await;
    let end = |name: &str, status| {
        let mut world = inn.host.world();
        world
            .units
            .insert(self::name(name), UnitPhase::Exited(status));
    };
    end("halts", 0);
    end("crashes", 1);
    inn.engine.restore().await.expect("restored");
    inn.until("it rests", async || {
        inn.state("halts").await == Some(GuestState::Stopped)
    })
    .await;
    inn.until("it runs again", async || {
        inn.state("crashes").await == Some(GuestState::Running)
    })
    .await;
    let guest = inn.engine.guest(&name("halts")).await.expect("there");
    assert_eq!(guest.desired, DesiredState::Stopped);
}

#[tokio::test]
async fn no_guest_starts_without_the_firewall() {
    let inn = inn();
    inn.engine.restore().await.expect("restored");
    assert_eq!(inn.create("before").await.failure, None);
    inn.host.fail("firewall.ensure", u32::MAX);
    let watcher = inn.engine.clone();
    tokio::spawn(async move { watcher.watch(Duration::from_millis(10)).await });
    inn.until("the loss is found", async || {
        let world = inn.host.world();
        world.failures["firewall.ensure"] < u32::MAX
    })
    .await;

    let refused = inn.create("meanwhile").await.failure.expect("fails");
    assert_eq!(refused.message, "firewall.ensure fails: injected");
    assert_eq!(inn.state("meanwhile").await, None);
    assert_eq!(inn.state("before").await, Some(GuestState::Running));

    inn.host.fail("firewall.ensure", 0);
    assert_eq!(inn.create("after").await.failure, None);
    inn.engine.stop_working().await;
}

#[tokio::test]
async fn gc_removes_orphans_and_spares_guests() {
    let inn = inn();
    inn.create("web").await;
    {
        let mut world = inn.host.world();
        world.trees.insert(name("lost"), String::new());
        world.links.insert(name("lost"));
    }
    let looked = inn
        .engine
        .gc(GcRequest {
            dry_run: true,
            unmarked: false,
        })
        .await
        .expect("looked");
    assert_eq!(looked.orphans.len(), 2);
    assert!(
        inn.host.world().trees.contains_key(&name("lost")),
        "a dry run removes nothing"
    );
    let swept = inn.engine.gc(GcRequest::default()).await.expect("swept");
    assert!(
        swept.orphans.iter().all(|orphan| orphan.removed),
        "{swept:?}"
    );
    assert!(!inn.host.world().trees.contains_key(&name("lost")));
    assert_eq!(inn.state("web").await, Some(GuestState::Running));
    assert!(
        inn.engine
            .gc(GcRequest::default())
            .await
            .expect("swept")
            .orphans
            .is_empty()
    );
}

/// Another daemon has a guest of the same name: nothing of it is removed, and it does not keep ours from going.
#[tokio::test]
async fn objects_of_other_daemons_and_without_a_mark_stay() {
    let inn = inn();
    inn.create("web").await;
    let foreign = |guest, object: &str, ownership| Found {
        guest: Some(name(guest)),
        object: object.to_owned(),
        ownership,
    };
    let theirs = foreign("web", "ve-7", Ownership::Other);
    let unmarked = foreign("lost", "ve-8", Ownership::Unmarked);
    inn.host.world().foreign = vec![theirs.clone(), unmarked.clone()];
    let swept = inn.engine.gc(GcRequest::default()).await.expect("swept");
    let listed: Vec<_> = swept
        .orphans
        .iter()
        .map(|one| (&*one.object, one.ownership, one.removed))
        .collect();
    assert_eq!(
        listed,
        [
            ("ve-7", Ownership::Other, false),
            ("ve-8", Ownership::Unmarked, false)
        ]
    );
    assert_eq!(inn.host.world().foreign, [theirs.clone(), unmarked]);
    let checks = inn.engine.doctor().await.expect("looked").checks;
    let about = |object| checks.iter().find(|check| check.finding.contains(object));
    assert_eq!(about("ve-7"), None);
    assert_eq!(
        about("ve-8").map(|check| check.verdict),
        Some(Verdict::Warning)
    );

    let all = GcRequest {
        dry_run: false,
        unmarked: true,
    };
    inn.engine.gc(all).await.expect("swept");
    assert_eq!(inn.host.world().foreign, [theirs]);
    let destroyed = inn.destroy("web").await;
    assert_eq!(destroyed.failure, None);
    assert_eq!(inn.state("web").await, None);
}

#[tokio::test]
async fn every_step_is_told_in_order() {
    let inn = inn();
    let operation = inn.create("web").await;
    inn.until("the last event is stored", async || {
        events(&inn, operation.id).await.last() == Some(&"finished".to_owned())
    })
    .await;
    let told = events(&inn, operation.id).await;
    // Steps of one stage run at the same time; the stages follow each other.
    let at = |what: &str| {
        told.iter()
            .position(|line| line == what)
            .unwrap_or_else(|| panic!("{what}: {told:?}"))
    };
    assert_eq!(at("accepted"), 0);
    assert!(at("done ensure-rootfs") < at("started ensure-unit"));
    assert!(at("done ensure-unit") < at("started ensure-network"));
    assert!(at("done ensure-network") < at("started release"));
}

async fn events(inn: &Inn, operation: innkeeper_model::OperationId) -> Vec<String> {
    let filter = innkeeper_store::EventFilter {
        after: 0,
        operation: Some(operation),
        guest: None,
        limit: 100,
        newest: false,
    };
    let events = inn.engine.store().events(filter).await.expect("read");
    let word = |kind: EventKind| match kind {
        EventKind::Accepted { .. } => "accepted".to_owned(),
        EventKind::StepStarted { step } => format!("started {step}"),
        EventKind::StepDone { step, .. } => format!("done {step}"),
        EventKind::Finished => "finished".to_owned(),
        other => format!("{other:?}"),
    };
    events.into_iter().map(|event| word(event.kind)).collect()
}

#[tokio::test]
async fn a_build_is_remembered_for_the_next_guest() {
    let inn = inn();
    let accepted = inn
        .engine
        .build(BuildRequest::default(), "test", Trust::Host)
        .await
        .expect("accepted");
    inn.until("the build has ended", async || {
        inn.host.builds.notify_waiters();
        inn.engine
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
    let created = inn
        .engine
        .create(request, "test", Trust::Host)
        .await
        .expect("accepted");
    assert_eq!(
        inn.end_of(created).await.failure,
        None,
        "it needs no build that nobody lets through"
    );
}

/// Lets a build through and waits for the end of its operation.
async fn built(inn: &Inn, accepted: Accepted) {
    inn.until("the operation has ended", async || {
        inn.host.builds.notify_waiters();
        let operation = inn.engine.operation(accepted.operation).await;
        operation.expect("there").state == OperationState::Done
    })
    .await;
}

#[tokio::test]
async fn a_member_cannot_have_the_host_read_a_local_flake() {
    let inn = inn();
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
            inn.engine.create(create, "uid:1000", Trust::Member).await,
            inn.engine.build(build, "uid:1000", Trust::Member).await,
        ] {
            let error = refused.expect_err(flake);
            assert_eq!(error.code(), Code::FlakeRefused, "{flake}");
            assert!(error.remedy().expect("a remedy").contains("--closure"));
        }
    }
    assert_eq!(inn.engine.list().await.expect("listed").len(), 0);
    assert!(inn.host.world().calls.is_empty(), "nothing was begun");
}

#[tokio::test]
async fn a_members_flake_is_built_as_a_members_also_when_the_daemon_was_killed_meanwhile() {
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
    let inn = Inn {
        engine: engine(&host, directory.path(), Duration::ZERO),
        _directory: directory,
        host,
    };
    inn.engine.restore().await.expect("restored");
    built(&inn, accepted).await;
    assert_eq!(inn.host.world().builds, [Trust::Member]);
}

#[tokio::test]
async fn a_members_build_is_not_remembered_for_the_host_and_the_hosts_flake_is_the_hosts() {
    let inn = inn();
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
        let accepted = inn.engine.create(request, "test", caller).await;
        built(&inn, accepted.expect("accepted")).await;
    }
    assert_eq!(
        inn.host.world().builds,
        [Trust::Member, Trust::Host, Trust::Host, Trust::Host],
    );
}

#[tokio::test]
async fn a_closure_that_nix_does_not_know_is_refused() {
    let inn = inn();
    inn.host.fail("closure.require_registered", 1);
    let refused = inn
        .engine
        .create(Inn::request("web"), "test", Trust::Host)
        .await;
    refused.expect_err("not registered");
    assert_eq!(inn.engine.list().await.expect("listed").len(), 0);
}

#[tokio::test]
async fn a_build_that_somebody_else_does_is_followed_like_the_engines_own() {
    let inn = inn();
    let mut live = inn.engine.journal().subscribe();
    let closure = a_closure();
    let built = closure.clone();
    let work = async move |progress: ProgressSink| {
        progress(BuildProgress::default());
        Ok(("web".to_owned(), built))
    };
    let accepted = inn.engine.build_with("test", work).await.expect("accepted");
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
    let accepted = inn.engine.build_with("test", work).await.expect("accepted");
    let ended = inn.engine.ended_operation(accepted.operation).await;
    assert_eq!(ended.expect("there").failure, Some(failure));
}

#[tokio::test]
async fn a_stopping_engine_takes_no_new_work() {
    let inn = inn();
    inn.engine.stop_working().await;
    let refused = inn
        .engine
        .create(Inn::request("web"), "test", Trust::Host)
        .await
        .expect_err("refused");
    assert_eq!(Failure::from(&refused).code.as_str(), "shutting_down");
}
