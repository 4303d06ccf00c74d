//! Levels: awake, paused, asleep.

use std::time::Duration;

use innkeeper_engine::{Edge, Engine, EngineError, Point, Probe};
use innkeeper_facilities::fake::{ExecResult, FakeHost};
use innkeeper_model::api::{Accepted, ExecRequest, SetRequest, SnapshotRequest};
use innkeeper_model::{
    ChangeOutcome, Code, DesiredState, Explain, GuestState, Level, MemorySize, Operation,
    SlotRange, Trust, Verb,
};
use innkeeper_store::Store;
use tokio::task::JoinHandle;

use crate::fixture::{Fixture, fixture, name};

impl Fixture {
    async fn web(&self, accepted: Result<Accepted, EngineError>) -> Operation {
        self.ended(accepted.expect("accepted")).await
    }

    async fn pause(&self) -> Operation {
        self.web(self.engine.pause(&name("web"), "test").await)
            .await
    }

    async fn sleep(&self) -> Operation {
        self.web(self.engine.sleep(&name("web"), "test").await)
            .await
    }

    async fn wake(&self) -> Operation {
        self.web(self.engine.wake(&name("web"), "test").await).await
    }

    async fn level(&self) -> Level {
        let guest = self.engine.guest(&name("web")).await;
        guest.expect("exists").level
    }

    async fn has(&self, state: GuestState) {
        let what = format!("it is {state}");
        self.until(&what, async || self.state("web").await == Some(state))
            .await;
    }

    fn started(&self) -> u32 {
        self.host.world().starts
    }

    fn is_frozen(&self) -> bool {
        self.host.world().frozen.contains(&name("web"))
    }

    fn watch(&self) -> JoinHandle<()> {
        let watcher = self.engine.clone();
        tokio::spawn(async move { watcher.watch(Duration::from_secs(3600)).await })
    }
}

#[tokio::test]
async fn paused_guest_is_frozen_and_continues() {
    let fixture = fixture();
    fixture.create("web").await;
    for _ in 0..2 {
        // The second request of each finds nothing to do.
        assert_eq!(fixture.pause().await.failure, None);
        assert!(fixture.is_frozen());
        assert_eq!(fixture.state("web").await, Some(GuestState::Paused));
    }
    for _ in 0..2 {
        assert_eq!(fixture.wake().await.failure, None);
        assert!(!fixture.is_frozen());
        assert_eq!(fixture.state("web").await, Some(GuestState::Running));
    }
    assert_eq!(fixture.started(), 1, "it was not restarted");
}

#[tokio::test]
async fn sleeping_guest_has_no_processes_and_keeps_everything_else() {
    let fixture = fixture();
    fixture.create("web").await;
    fixture.pause().await;
    // From paused, too.
    assert_eq!(fixture.sleep().await.failure, None);
    assert_eq!(fixture.state("web").await, Some(GuestState::Asleep));
    {
        let world = fixture.host.world();
        assert!(world.units.is_empty() && world.links.is_empty());
        assert!(world.trees.contains_key(&name("web")) && world.roots.contains(&name("web")));
    }
    let before = fixture.engine.guest(&name("web")).await.expect("exists");
    assert_eq!(fixture.wake().await.failure, None);
    assert_eq!(fixture.state("web").await, Some(GuestState::Running));
    let after = fixture.engine.guest(&name("web")).await.expect("exists");
    assert_eq!((after.slot, fixture.started()), (before.slot, 2));
}

#[tokio::test]
async fn stop_start_and_destroy_reach_resting_guests() {
    let fixture = fixture();
    fixture.create("web").await;
    for level in [Level::Paused, Level::Asleep] {
        match level {
            Level::Paused => fixture.pause().await,
            _ => fixture.sleep().await,
        };
        let started = fixture.engine.start(&name("web"), "test").await;
        assert_eq!(fixture.web(started).await.failure, None);
        assert_eq!(fixture.state("web").await, Some(GuestState::Running));
        fixture.pause().await;
        let stopped = fixture.engine.stop(&name("web"), "test").await;
        assert_eq!(fixture.web(stopped).await.failure, None);
        assert_eq!(fixture.state("web").await, Some(GuestState::Stopped));
        // The next start finds no level.
        assert_eq!(fixture.level().await, Level::Awake);
        let started = fixture.engine.start(&name("web"), "test").await;
        fixture.web(started).await;
    }
    fixture.pause().await;
    assert_eq!(fixture.destroy("web").await.failure, None);
    assert!(fixture.host.world().is_empty() && fixture.host.world().frozen.is_empty());
}

#[tokio::test]
async fn levels_are_for_guests_that_should_run() {
    let fixture = fixture();
    fixture.create("web").await;
    fixture.sleep().await;
    let refused = fixture.engine.pause(&name("web"), "test").await;
    let refused = refused.expect_err("asleep");
    assert_eq!(refused.code(), Code::GuestNotRunning);
    assert!(
        refused
            .remedy()
            .is_some_and(|hint| hint.contains("agent wake web"))
    );
    assert_eq!(fixture.state("web").await, Some(GuestState::Asleep));
    let stopped = fixture.engine.stop(&name("web"), "test").await;
    fixture.web(stopped).await;
    for refused in [
        fixture.engine.pause(&name("web"), "test").await,
        fixture.engine.sleep(&name("web"), "test").await,
        fixture.engine.wake(&name("web"), "test").await,
    ] {
        let refused = refused.expect_err("stopped");
        assert_eq!(refused.code(), Code::GuestNotRunning);
        assert!(
            refused
                .remedy()
                .is_some_and(|hint| hint.contains("agent start web"))
        );
    }
    assert_eq!(fixture.state("web").await, Some(GuestState::Stopped));
}

#[tokio::test]
async fn paused_guest_that_loses_its_processes_is_asleep() {
    let fixture = fixture();
    let _watch = fixture.watch();
    fixture.create("web").await;
    for status in [137, 0] {
        fixture.pause().await;
        let starts = fixture.started();
        fixture.host.end(&name("web"), status);
        fixture.has(GuestState::Asleep).await;
        let guest = fixture.engine.guest(&name("web")).await.expect("exists");
        assert_eq!((guest.level, guest.fault), (Level::Asleep, None));
        assert_eq!(guest.desired, DesiredState::Running);
        assert_eq!(fixture.started(), starts, "it was not started");
        // The restore that recorded it ends a little later, and refuses other operations until then.
        let is_over = async || {
            let running = fixture.engine.store().running_operations().await;
            running.expect("a list").is_empty()
        };
        fixture.until("the restore has ended", is_over).await;
        fixture.wake().await;
    }
}

#[tokio::test]
async fn levels_survive_a_restart_of_the_daemon_and_a_reboot_of_the_host() {
    let fixture = fixture();
    fixture.create("web").await;
    fixture.pause().await;
    fixture.host.world().calls.clear();
    fixture.engine.abandon_exports().await;
    fixture.engine.restore().await.expect("restored");
    fixture.engine.stop_working().await;
    let calls = fixture.host.world().calls.clone();
    assert!(
        !calls.iter().any(|call| call.starts_with("unit.")),
        "{calls:?}"
    );
    assert_eq!(fixture.state("web").await, Some(GuestState::Paused));

    {
        let mut world = fixture.host.world();
        world.units.clear();
        world.frozen.clear();
        world.links.clear();
    }
    let rebooted = crate::fixture::engine(&fixture.host, fixture._directory.path(), Duration::ZERO);
    rebooted.restore().await.expect("restored");
    let asleep = async || {
        let view = rebooted.show(&name("web")).await.expect("exists");
        (view.state, view.guest.level) == (GuestState::Asleep, Level::Asleep)
    };
    fixture.until("it is asleep", asleep).await;
    assert_eq!(fixture.started(), 1, "it was not started");
}

#[tokio::test]
async fn guest_stays_awake_on_a_host_that_cannot_pause_it() {
    let fixture = fixture();
    fixture.create("web").await;
    fixture.host.world().without_freezer = true;
    let failure = fixture.pause().await.failure.expect("fails");
    assert_eq!(failure.code, Code::KernelFeatureMissing);
    fixture.has(GuestState::Running).await;
    assert_eq!(fixture.level().await, Level::Awake);
    fixture.host.world().without_freezer = false;
    fixture.host.fail("unit.freeze", 1);
    assert!(fixture.pause().await.failure.is_some());
    fixture.has(GuestState::Running).await;
    let guest = fixture.engine.guest(&name("web")).await.expect("exists");
    assert_eq!(guest.fault, None);
}

#[tokio::test]
async fn guest_that_does_not_wake_is_asleep_again() {
    let fixture = fixture();
    fixture.create("web").await;
    fixture.sleep().await;
    fixture.host.fail("unit.ensure", u32::MAX);
    let failure = fixture.wake().await.failure.expect("fails");
    assert_eq!(failure.code, Code::RootfsFailed);
    fixture.has(GuestState::Asleep).await;
    let recorded = fixture.engine.guest(&name("web")).await.expect("exists");
    assert_eq!(recorded.wake_failure, Some(failure));
    let left = fixture.host.world().failures["unit.ensure"].times;
    fixture.engine.stop_working().await;
    let now = fixture.host.world().failures["unit.ensure"].times;
    assert_eq!((now, u32::MAX - now), (left, 1), "it is not retried");
}

/// The daemon is killed before and after a rollback, and before its end is recorded. The host does not fail again: an operation
/// that was carried out again would succeed.
#[tokio::test]
async fn rollback_that_a_crash_interrupts_is_completed() {
    let points = [
        ("roll-back", Edge::Before),
        ("roll-back", Edge::After),
        ("finish", Edge::Before),
    ];
    for (verb, failing, state) in [
        (Verb::Pause, "unit.freeze", GuestState::Running),
        (Verb::Wake, "unit.ensure", GuestState::Asleep),
        (Verb::Start, "unit.ensure", GuestState::Stopped),
        (Verb::RestoreSnapshot, "rootfs.restore", GuestState::Running),
    ] {
        for (step, edge) in points {
            let crashes = format!("{verb}:{step}:{edge:?}");
            rollback_completes_after_a_crash(verb, failing, state, move |point| {
                (point.verb, point.step, point.edge) == (verb, step, edge)
            })
            .await
            .unwrap_or_else(|problem| panic!("{crashes}: {problem}"));
        }
    }
}

#[expect(clippy::panic, reason = "a panic ends the task, as a crash does")]
async fn rollback_completes_after_a_crash(
    verb: Verb,
    failing: &'static str,
    state: GuestState,
    is_crash: impl Fn(Point) -> bool + Send + Sync + 'static,
) -> Result<(), String> {
    let (directory, host) = (tempfile::tempdir().expect("tempdir"), FakeHost::new());
    let crashed = std::sync::Arc::new(tokio::sync::Notify::new());
    let reached = std::sync::Arc::clone(&crashed);
    let probe: Probe = std::sync::Arc::new(move |point| {
        if is_crash(point) {
            reached.notify_one();
            panic!("killed");
        }
    });
    let config = crate::fixture::config();
    let store = Store::open(&directory.path().join("db"), SlotRange::default()).expect("opens");
    let fixture = Fixture {
        engine: Engine::new(config, store, host.facilities(), Some(probe)),
        host,
        _directory: directory,
    };
    let (engine, web) = (&fixture.engine, name("web"));
    fixture.create("web").await;
    let snapshot = engine.snapshot(&web, SnapshotRequest::default(), "test");
    let snapshot = snapshot.await.expect("accepted");
    fixture.ended(snapshot.accepted).await;
    match verb {
        Verb::Wake => drop(fixture.sleep().await),
        Verb::Start => drop(fixture.web(engine.stop(&web, "test").await).await),
        _ => {}
    }
    fixture.host.fail(failing, 1);
    let accepted = match verb {
        Verb::Pause => engine.pause(&web, "test").await,
        Verb::Wake => engine.wake(&web, "test").await,
        Verb::Start => engine.start(&web, "test").await,
        _ => engine.restore_snapshot(&web, &snapshot.label, "test").await,
    };
    let accepted = accepted.expect("accepted");
    crashed.notified().await;

    let path = fixture._directory.path();
    let next = crate::fixture::engine(&fixture.host, path, Duration::ZERO);
    next.restore().await.expect("restored");
    let ended = next.ended_operation(accepted.operation).await;
    let failure = ended.expect("ended").failure.ok_or("it succeeded")?;
    if failure.message.contains("interrupted") || failure.code == Code::GuestBusy {
        return Err(format!("the cause is lost: {failure}"));
    }
    let has_state = async || {
        let view = next.show(&web).await.expect("exists");
        view.state == state
    };
    fixture.until(&format!("it is {state}"), has_state).await;
    let guest = next.guest(&web).await.expect("exists");
    let kept = (verb == Verb::Wake).then_some(failure);
    match guest.wake_failure == kept {
        true => Ok(()),
        false => Err(format!("{:?}", guest.wake_failure)),
    }
}

#[tokio::test]
async fn guest_that_ended_by_itself_is_not_paused() {
    let fixture = fixture();
    let _watch = fixture.watch();
    fixture.create("web").await;
    fixture.host.fail("unit.ensure", u32::MAX);
    fixture.host.end(&name("web"), 1);
    fixture.has(GuestState::Failed).await;
    let idle = async || {
        let operation = fixture.engine.operation_on(&name("web")).await;
        operation.expect("reads").is_none()
    };
    fixture.until("no operation runs", idle).await;
    let refused = fixture.engine.pause(&name("web"), "test").await;
    let refused = refused.expect_err("has no processes");
    assert_eq!(refused.code(), Code::GuestNotRunning);
    let remedy = refused.remedy().expect("one");
    assert!(remedy.contains("agent sleep web"), "{remedy}");
    // It is still started again by itself.
    fixture.host.world().failures.clear();
    fixture.has(GuestState::Running).await;
    assert_eq!(fixture.level().await, Level::Awake);
}

#[tokio::test]
async fn commands_wait_for_one_wake() {
    let fixture = fixture();
    fixture.create("web").await;
    fixture.host.world().exec = Some(std::sync::Arc::new(|_, _| ExecResult::default()));
    let request = ExecRequest {
        command: vec!["true".to_owned()],
        tty: false,
        size: None,
        environment: Vec::new(),
        user: None,
        detached: false,
    };
    let web = name("web");
    for level in [Level::Paused, Level::Asleep] {
        match level {
            Level::Paused => fixture.pause().await,
            _ => fixture.sleep().await,
        };
        let refused = fixture.engine.exec(&web, &request).await;
        let refused = refused.expect_err("rests");
        assert_eq!(refused.code(), Code::GuestNotRunning);
        assert_eq!(refused.to_string(), format!("guest 'web' is {level}"));
        fixture.host.world().calls.clear();
        let many = (0..20).map(|_| fixture.engine.awaken(&web, "test"));
        for woken in futures_util::future::join_all(many).await {
            // A call after the end of the wake finds nothing to do.
            let _rested: bool = woken.expect("awake");
        }
        let calls = fixture.host.world().calls.clone();
        let wakes = ["unit.thaw web", "unit.release web"];
        let wakes = calls.iter().filter(|call| wakes.contains(&call.as_str()));
        assert_eq!(wakes.count(), 1, "{calls:?}");
        fixture.engine.exec(&web, &request).await.expect("runs");
    }
    assert!(!fixture.engine.awaken(&web, "test").await.expect("awake"));
    fixture.sleep().await;
    fixture.host.fail("unit.ensure", 1);
    let failed = fixture.engine.awaken(&web, "test").await;
    assert_eq!(failed.expect_err("fails").code(), Code::RootfsFailed);
}

#[tokio::test]
async fn change_of_a_resting_guest_wakes_it_or_waits_for_its_start() {
    let memory = SetRequest {
        memory: Some(MemorySize::from_bytes(2 << 30)),
        ..SetRequest::default()
    };
    for (level, outcome, state) in [
        (Level::Paused, ChangeOutcome::Restarted, GuestState::Running),
        (
            Level::Asleep,
            ChangeOutcome::AtNextStart,
            GuestState::Asleep,
        ),
    ] {
        let fixture = fixture();
        fixture.create("web").await;
        match level {
            Level::Paused => fixture.pause().await,
            _ => fixture.sleep().await,
        };
        let web = name("web");
        let set = fixture
            .engine
            .set(&web, memory.clone(), "test", Trust::Host);
        let set = set.await;
        assert_eq!(fixture.web(set).await.failure, None, "{level}");
        let guest = fixture.engine.guest(&name("web")).await.expect("exists");
        let last = guest.last_change.expect("one");
        assert_eq!(last.outcome, outcome, "{level}");
        assert_eq!(Some(guest.limits.memory), memory.memory, "{level}");
        assert_eq!(fixture.state("web").await, Some(state), "{level}");
    }
}

/// As by `innkeeper apply` at each switch of the host.
#[tokio::test]
async fn change_that_changes_nothing_leaves_a_paused_guest_paused() {
    let fixture = fixture();
    fixture.create("web").await;
    fixture.pause().await;
    fixture.host.world().calls.clear();
    let same = SetRequest {
        closure: Some(innkeeper_facilities::fake::a_closure()),
        memory: Some(crate::fixture::config().limits.memory),
        ..SetRequest::default()
    };
    let web = name("web");
    let set = fixture.engine.set(&web, same, "test", Trust::Host).await;
    assert_eq!(fixture.web(set).await.failure, None);
    let guest = fixture.engine.guest(&web).await.expect("exists");
    let last = guest.last_change.expect("one");
    assert_eq!(last.outcome, ChangeOutcome::Unchanged);
    let calls = fixture.host.world().calls.clone();
    assert!(!calls.contains(&"unit.thaw web".to_owned()), "{calls:?}");
    assert_eq!(fixture.state("web").await, Some(GuestState::Paused));
}

/// The daemon was killed while processes were being suspended.
#[tokio::test]
async fn guest_that_is_not_yet_frozen_does_not_count_as_paused() {
    let fixture = fixture();
    fixture.create("web").await;
    fixture.pause().await;
    fixture.host.world().freezing.insert(name("web"));
    assert_eq!(fixture.state("web").await, Some(GuestState::Running));
    fixture.engine.restore().await.expect("restored");
    fixture.has(GuestState::Paused).await;
    fixture.host.world().freezing.insert(name("web"));
    assert_eq!(fixture.wake().await.failure, None);
    let world = fixture.host.world();
    assert!(world.frozen.is_empty() && world.freezing.is_empty());
}

#[tokio::test]
async fn end_of_a_backup_continues_no_guest_under_work() {
    let fixture = fixture();
    fixture.host.world().plain = true;
    fixture.create("web").await;
    let set = tempfile::tempdir().expect("directory");
    let files = set.path().join("rootfs");
    let web = fixture.engine.guest(&name("web")).await.expect("exists");
    let exports = std::sync::Arc::clone(&fixture.host.exports);
    let held = exports.write().await;
    let engine = fixture.engine.clone();
    let export = tokio::spawn(async move { engine.export_guest(&web, &files).await });
    let frozen = async || fixture.is_frozen();
    fixture.until("it is frozen for the copy", frozen).await;
    let abandoned = fixture.engine.abandon_exports();
    let abandoned = tokio::time::timeout(Duration::from_millis(100), abandoned).await;
    assert!(abandoned.is_err() && fixture.is_frozen());
    drop(held);
    export.await.expect("ends").expect("copies");
    assert!(!fixture.is_frozen());
}

#[tokio::test]
async fn files_of_a_paused_guest_are_copied_while_it_stays_frozen() {
    let fixture = fixture();
    fixture.host.world().plain = true;
    fixture.create("web").await;
    let request = SnapshotRequest::default();
    let refused = fixture
        .engine
        .snapshot(&name("web"), request.clone(), "test")
        .await;
    assert_eq!(refused.expect_err("runs").code(), Code::GuestRunning);
    fixture.pause().await;
    fixture.host.world().calls.clear();
    let taken = fixture
        .engine
        .snapshot(&name("web"), request, "test")
        .await
        .expect("accepted");
    assert_eq!(fixture.ended(taken.accepted).await.failure, None);
    let set = tempfile::tempdir().expect("directory");
    let files = set.path().join("rootfs");
    let web = fixture.engine.guest(&name("web")).await.expect("exists");
    let exported = fixture.engine.export_guest(&web, &files).await;
    let (_, exported) = exported.expect("copies").expect("has files");
    assert_eq!(exported.suspended, None);
    fixture.engine.abandon_exports().await;
    let calls = fixture.host.world().calls.clone();
    assert!(
        !calls.iter().any(|call| call.starts_with("unit.")),
        "{calls:?}"
    );
    assert_eq!(fixture.state("web").await, Some(GuestState::Paused));
}

#[tokio::test]
async fn restore_of_a_snapshot_leaves_a_resting_guest_asleep() {
    let fixture = fixture();
    fixture.create("web").await;
    let taken = fixture
        .engine
        .snapshot(&name("web"), SnapshotRequest::default(), "test")
        .await
        .expect("accepted");
    fixture.ended(taken.accepted).await;
    for level in [Level::Paused, Level::Asleep] {
        match level {
            Level::Paused => fixture.pause().await,
            _ => fixture.sleep().await,
        };
        let restored = fixture
            .engine
            .restore_snapshot(&name("web"), &taken.label, "test")
            .await;
        assert_eq!(fixture.web(restored).await.failure, None);
        assert_eq!(fixture.state("web").await, Some(GuestState::Asleep));
        fixture.wake().await;
    }
}
