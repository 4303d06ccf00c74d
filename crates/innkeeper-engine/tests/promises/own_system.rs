//! Systems that guests have built for themselves.

use std::sync::Arc;
use std::time::Duration;

use innkeeper_engine::EngineConfig;
use innkeeper_facilities::BOOT_OWN;
use innkeeper_facilities::fake::{ExecResult, a_closure};
use innkeeper_model::api::{ForkRequest, SetRequest, SnapshotRequest, Verdict};
use innkeeper_model::{
    ChangeOutcome, Code, GuestState, MemorySize, OperationState, OwnSystem, OwnSystemState,
    SnapshotLabel, StorePath, Trust, UnitPhase,
};

use crate::fixture::{Fixture, config, engine, fixture, fixture_with, name};

fn system(number: u8) -> StorePath {
    let path = format!("/nix/store/0000000000000000000000000000000{number}-own");
    StorePath::parse(&path).expect("valid")
}

fn to(closure: StorePath) -> SetRequest {
    SetRequest {
        closure: Some(closure),
        ..SetRequest::default()
    }
}

/// Returns a request for another limit.
fn memory() -> SetRequest {
    SetRequest {
        memory: Some(MemorySize::from_bytes(2 << 30)),
        ..SetRequest::default()
    }
}

/// Returns a host with a running agent whose closure can boot an own system.
async fn agent() -> Fixture {
    let fixture = fixture();
    fixture.host.world().programs.insert(BOOT_OWN);
    assert_eq!(fixture.create("web").await.failure, None);
    fixture
}

impl Fixture {
    /// Lets the guest's profile name a system, as a rebuild in the guest does.
    fn rebuild(&self, system: StorePath) {
        self.host.world().profiles.insert(name("web"), system);
    }

    /// Lets the guest's profile name a system that does not come up.
    fn rebuild_broken(&self, system: StorePath) {
        self.host.world().broken_systems.insert(system.clone());
        self.rebuild(system);
    }

    async fn restart(&self) {
        let web = name("web");
        let stop = self.engine.stop(&web, "test").await.expect("accepted");
        assert_eq!(self.ended(stop).await.failure, None);
        let start = self.engine.start(&web, "test").await.expect("accepted");
        assert_eq!(self.ended(start).await.failure, None);
        assert_eq!(self.state("web").await, Some(GuestState::Running));
    }

    async fn set_web(&self, request: SetRequest) -> Option<Code> {
        let web = name("web");
        let set = self.engine.set(&web, request, "test", Trust::Host);
        let accepted = set.await.expect("accepted");
        self.ended(accepted)
            .await
            .failure
            .map(|failure| failure.code)
    }

    /// Lets each command in a guest print this.
    fn answer(&self, answer: &'static str) {
        self.host.world().exec = Some(Arc::new(move |_, _| ExecResult {
            stdout: format!("{answer}\n"),
            ..ExecResult::default()
        }));
    }

    /// Returns the own system in the record, after an observation.
    async fn own(&self, guest: &str) -> Option<OwnSystem> {
        let view = self.engine.show(&name(guest)).await.expect("exists");
        view.guest.own_system.map(|own| *own)
    }

    async fn own_state(&self) -> Option<(StorePath, OwnSystemState)> {
        self.own("web").await.map(|own| (own.system, own.state))
    }

    /// Returns what the last start booted; `None` for the closure from the host.
    fn booted(&self) -> Option<StorePath> {
        let booted = self.host.world().booted.last().cloned();
        booted.expect("a start")
    }

    fn boots(&self) -> usize {
        self.host.world().booted.len()
    }
}

#[tokio::test]
async fn next_start_boots_the_own_system() {
    let fixture = agent().await;
    assert_eq!(fixture.own_state().await, None);
    fixture.rebuild(system(1));
    let pending = Some((system(1), OwnSystemState::Pending));
    assert_eq!(fixture.own_state().await, pending, "`agent show` sees it");
    assert_eq!(fixture.boots(), 1, "the plan leaves the guest alone");
    fixture.restart().await;
    assert_eq!(fixture.booted(), Some(system(1)));
    let booted = Some((system(1), OwnSystemState::Booted));
    assert_eq!(fixture.own_state().await, booted);
    // Another rebuild, which nobody observes before the stop.
    fixture.rebuild(system(2));
    fixture.restart().await;
    assert_eq!(fixture.booted(), Some(system(2)));
    fixture.host.world().profiles.clear();
    fixture.restart().await;
    assert_eq!(fixture.booted(), None);
    assert_eq!(fixture.own_state().await, None);
}

#[tokio::test]
async fn profile_that_names_the_closure_from_the_host_is_no_own_system() {
    let fixture = agent().await;
    fixture.rebuild(a_closure());
    fixture.restart().await;
    assert_eq!((fixture.booted(), fixture.own_state().await), (None, None));
}

#[tokio::test]
async fn closure_without_the_program_boots_no_own_system() {
    let fixture = fixture();
    fixture.create("web").await;
    fixture.rebuild(system(1));
    fixture.restart().await;
    assert_eq!((fixture.booted(), fixture.own_state().await), (None, None));
}

#[tokio::test]
async fn system_that_does_not_come_up_is_replaced_by_the_hosts_once() {
    let fixture = agent().await;
    fixture
        .host
        .world()
        .consoles
        .insert(name("web"), "line\nits end\n".to_owned());
    fixture.rebuild_broken(system(1));
    fixture.restart().await;
    let booted = fixture.host.world().booted.clone();
    assert_eq!(booted, [None, Some(system(1)), None]);
    let own = fixture.own("web").await.expect("recorded");
    assert_eq!(own.state, OwnSystemState::Failed);
    let failure = own.failure.expect("a reason");
    assert_eq!(failure.code, Code::GuestUnhealthy);
    assert!(failure.message.contains("its init has exited"), "{failure}");
    assert_eq!(failure.log, ["line", "its end"]);

    let report = fixture.engine.doctor().await.expect("a report");
    let check = report
        .checks
        .iter()
        .find(|check| check.subject == "guest web");
    let check = check.expect("a check");
    assert_eq!(check.verdict, Verdict::Warning, "{check:?}");
    assert!(check.finding.contains("own system"), "{check:?}");

    // The daemon does not try it again before the profile names another one, and a start of the stopped agent does, once.
    let watcher = fixture.engine.clone();
    tokio::spawn(async move { watcher.watch(Duration::from_secs(3600)).await });
    tokio::task::yield_now().await;
    fixture.host.end(&name("web"), UnitPhase::REBOOT);
    fixture
        .until("it runs again", async || fixture.boots() == 4)
        .await;
    assert_eq!(fixture.booted(), None);
    let start = fixture.engine.start(&name("web"), "test").await;
    fixture.ended(start.expect("accepted")).await;
    assert_eq!(fixture.boots(), 4, "it runs");
    let failed = Some((system(1), OwnSystemState::Failed));
    assert_eq!(fixture.own_state().await, failed);
    fixture.restart().await;
    let booted = fixture.host.world().booted.split_off(4);
    assert_eq!(booted, [Some(system(1)), None]);
    assert_eq!(fixture.own_state().await, failed);
    // The cause was another one.
    fixture.host.world().broken_systems.clear();
    fixture.restart().await;
    assert_eq!(fixture.booted(), Some(system(1)));
    fixture.rebuild(system(2));
    fixture.restart().await;
    assert_eq!(fixture.booted(), Some(system(2)));
}

#[tokio::test]
async fn system_of_a_guest_with_systemd_must_be_up() {
    for (answer, state) in [
        ("running", OwnSystemState::Booted),
        ("degraded", OwnSystemState::Booted),
        ("maintenance", OwnSystemState::Failed),
    ] {
        let fixture = agent().await;
        fixture.host.world().programs.insert("sw/bin/systemctl");
        fixture.answer(answer);
        fixture.rebuild(system(1));
        fixture.restart().await;
        assert_eq!(
            fixture.own_state().await,
            Some((system(1), state)),
            "{answer}"
        );
        let is_own = fixture.booted() == Some(system(1));
        assert_eq!(is_own, state == OwnSystemState::Booted, "{answer}");
    }
}

#[tokio::test]
async fn system_that_starts_units_for_long_is_up_once_it_can_be_repaired() {
    for (basics, state) in [
        ("active", OwnSystemState::Booted),
        ("inactive", OwnSystemState::Failed),
    ] {
        let fixture = fixture_with(EngineConfig {
            boot_timeout: Duration::from_millis(1),
            ..config()
        });
        let programs = [BOOT_OWN, "sw/bin/systemctl"];
        fixture.host.world().programs.extend(programs);
        assert_eq!(fixture.create("web").await.failure, None);
        fixture.host.world().exec = Some(Arc::new(move |_, request| {
            let is_of_basics = request.command.iter().any(|word| word == "basic.target");
            let answer = if is_of_basics { basics } else { "starting" };
            ExecResult {
                stdout: format!("{answer}\n"),
                ..ExecResult::default()
            }
        }));
        fixture.rebuild(system(1));
        fixture.restart().await;
        assert_eq!(
            fixture.own_state().await,
            Some((system(1), state)),
            "{basics}"
        );
    }
}

#[tokio::test]
async fn closure_that_boots_no_own_system_leaves_it_replaced() {
    let other = StorePath::parse("/nix/store/00000000000000000000000000000000-other");
    let other = other.expect("valid");
    let replaced = Some((system(1), OwnSystemState::Replaced));
    for is_broken in [false, true] {
        let fixture = agent().await;
        match is_broken {
            true => fixture.rebuild_broken(system(1)),
            false => fixture.rebuild(system(1)),
        }
        fixture.restart().await;
        assert_eq!(fixture.set_web(to(other.clone())).await, None);
        fixture.host.world().programs.remove(BOOT_OWN);
        fixture.restart().await;
        assert_eq!(
            (fixture.booted(), fixture.own_state().await),
            (None, replaced.clone())
        );
        // The next closure boots own systems, and this one was replaced.
        fixture.host.world().programs.insert(BOOT_OWN);
        fixture.host.world().broken_systems.clear();
        fixture.restart().await;
        assert_eq!(
            (fixture.booted(), fixture.own_state().await),
            (None, replaced.clone())
        );
        fixture.rebuild(system(2));
        fixture.restart().await;
        assert_eq!(fixture.booted(), Some(system(2)));
    }
}

#[tokio::test]
async fn unreadable_profile_boots_the_closure_from_the_host() {
    let fixture = agent().await;
    fixture.rebuild(system(1));
    fixture.restart().await;
    fixture.host.fail("rootfs.own_system", 2);
    fixture.restart().await;
    assert_eq!(fixture.booted(), None);
    fixture.restart().await;
    assert_eq!(fixture.booted(), Some(system(1)));
}

#[tokio::test]
async fn each_start_tries_one_own_system_at_most() {
    for is_change in [false, true] {
        let fixture = agent().await;
        {
            let mut world = fixture.host.world();
            let toggles = [(system(1), system(2)), (system(2), system(1))];
            world.profile_writers.extend(toggles);
            world.broken_systems.extend([system(1), system(2)]);
        }
        fixture.rebuild(system(1));
        match is_change {
            true => assert_eq!(fixture.set_web(memory()).await, None),
            false => fixture.restart().await,
        }
        let booted = fixture.host.world().booted.clone();
        assert_eq!(booted, [None, Some(system(1)), None], "{is_change}");
        let pending = Some((system(2), OwnSystemState::Pending));
        assert_eq!(fixture.own_state().await, pending);
    }
}

#[tokio::test]
async fn failure_at_the_door_is_no_finding_about_the_own_system() {
    let fixture = agent().await;
    fixture.rebuild(system(1));
    let stop = fixture.engine.stop(&name("web"), "test").await;
    fixture.ended(stop.expect("accepted")).await;
    fixture.host.fail("unit.release", 1);
    let start = fixture.engine.start(&name("web"), "test").await;
    let failure = fixture.ended(start.expect("accepted")).await.failure;
    assert!(failure.is_some());
    let pending = Some((system(1), OwnSystemState::Pending));
    assert_eq!(fixture.own_state().await, pending);
    let start = fixture.engine.start(&name("web"), "test").await;
    let failure = fixture.ended(start.expect("accepted")).await.failure;
    assert_eq!(failure, None);
    let booted = Some((system(1), OwnSystemState::Booted));
    assert_eq!(fixture.own_state().await, booted);
}

#[tokio::test]
async fn end_of_the_daemon_is_no_finding_about_a_system_that_comes_up() {
    for is_change in [false, true] {
        let fixture = agent().await;
        fixture.answer("running");
        fixture.host.world().programs.insert("sw/bin/systemctl");
        if !is_change {
            fixture.rebuild(system(1));
        }
        let web = name("web");
        let stop = fixture.engine.stop(&web, "test").await.expect("accepted");
        fixture.ended(stop).await;
        let (accepted, boots) = match is_change {
            false => {
                fixture.answer("starting");
                (fixture.engine.start(&web, "test").await, 2)
            }
            true => {
                let start = fixture.engine.start(&web, "test").await;
                fixture.ended(start.expect("accepted")).await;
                fixture.answer("starting");
                let set = fixture.engine.set(&web, memory(), "test", Trust::Host);
                (set.await, 3)
            }
        };
        let operation = accepted.expect("accepted").operation;
        fixture
            .until("it boots", async || fixture.boots() == boots)
            .await;
        fixture.engine.stop_working().await;
        let found = fixture.engine.operation(operation).await.expect("there");
        assert_eq!(found.state, OperationState::Running, "{is_change}");
        // The host may end the guest before the next daemon starts.
        fixture.host.world().units.clear();
        fixture.answer("running");
        let next = engine(&fixture.host, fixture._directory.path(), Duration::ZERO);
        next.restore().await.expect("restored");
        let ended = async || {
            let found = next.operation(operation).await.expect("there");
            found.state != OperationState::Running
        };
        fixture.until("it ends", ended).await;
        let found = next.operation(operation).await.expect("there");
        assert_eq!(found.failure, None, "{is_change}");
        let own = next.show(&web).await.expect("exists").guest.own_system;
        let state = own.map(|own| own.state);
        let expected = (!is_change).then_some(OwnSystemState::Booted);
        assert_eq!(state, expected);
    }
}

#[tokio::test]
async fn change_of_an_agent_does_not_need_its_profile() {
    let fixture = agent().await;
    fixture.rebuild(system(1));
    fixture.restart().await;
    for request in [memory(), to(a_closure())] {
        fixture.host.fail("rootfs.own_system", u32::MAX);
        assert_eq!(fixture.set_web(request).await, None);
    }
    assert_eq!(fixture.booted(), None);
    fixture.host.world().failures.clear();
    let replaced = Some((system(1), OwnSystemState::Replaced));
    assert_eq!(fixture.own_state().await, replaced);
}

#[tokio::test]
async fn request_for_a_closure_replaces_the_system_of_a_stopped_agent() {
    let fixture = agent().await;
    let stop = fixture.engine.stop(&name("web"), "test").await;
    fixture.ended(stop.expect("accepted")).await;
    // As if it was powered off from inside, before the next observation.
    fixture.rebuild(system(1));
    assert_eq!(fixture.set_web(to(a_closure())).await, None);
    let start = fixture.engine.start(&name("web"), "test").await;
    fixture.ended(start.expect("accepted")).await;
    assert_eq!(fixture.booted(), None);
    let replaced = Some((system(1), OwnSystemState::Replaced));
    assert_eq!(fixture.own_state().await, replaced);
}

#[tokio::test]
async fn request_for_a_closure_replaces_the_own_system() {
    let fixture = agent().await;
    fixture.rebuild(system(1));
    fixture.restart().await;
    // The closure that the host has for it already.
    assert_eq!(fixture.set_web(to(a_closure())).await, None);
    assert_eq!(fixture.booted(), None);
    let replaced = Some((system(1), OwnSystemState::Replaced));
    assert_eq!(fixture.own_state().await, replaced);
    fixture.restart().await;
    assert_eq!(fixture.booted(), None, "its files are left, and not booted");
    fixture.rebuild(system(2));
    fixture.restart().await;
    assert_eq!(fixture.booted(), Some(system(2)));
    // Other limits, and the declaration that the host's switch repeats, are no request for another closure.
    let declared = SetRequest {
        declared: true,
        ..to(a_closure())
    };
    let starts = fixture.boots();
    for request in [memory(), declared] {
        assert_eq!(fixture.set_web(request).await, None);
        assert_eq!(fixture.booted(), Some(system(2)));
    }
    assert_eq!(fixture.boots(), starts + 1);
}

#[tokio::test]
async fn change_that_fails_leaves_the_own_system() {
    let fixture = agent().await;
    fixture.rebuild(system(1));
    fixture.restart().await;
    let other = StorePath::parse("/nix/store/00000000000000000000000000000000-other");
    fixture.host.fail("unit.release", 1);
    let failure = fixture.set_web(to(other.expect("valid"))).await;
    assert!(failure.is_some());
    let guest = fixture.engine.guest(&name("web")).await.expect("exists");
    let outcome = guest.last_change.map(|last| last.outcome);
    assert_eq!(outcome, Some(ChangeOutcome::RolledBack));
    assert_eq!(guest.closure, Some(a_closure()));
    assert_eq!(fixture.booted(), Some(system(1)));
    let booted = Some((system(1), OwnSystemState::Booted));
    assert_eq!(fixture.own_state().await, booted);
}

#[tokio::test]
async fn change_of_limits_survives_a_broken_own_system() {
    let fixture = agent().await;
    fixture.rebuild_broken(system(1));
    assert_eq!(fixture.set_web(memory()).await, None);
    assert_eq!(fixture.booted(), None);
    let guest = fixture.engine.guest(&name("web")).await.expect("exists");
    assert_eq!(guest.limits.memory.bytes(), 2 << 30);
    assert_eq!(guest.change, None);
    let failed = Some((system(1), OwnSystemState::Failed));
    assert_eq!(fixture.own_state().await, failed);
}

#[tokio::test]
async fn restore_boots_the_restored_system() {
    let fixture = agent().await;
    fixture.host.world().plain = true;
    let web = name("web");
    let stop = fixture.engine.stop(&web, "test").await.expect("accepted");
    fixture.ended(stop).await;
    let request = SnapshotRequest {
        label: Some(SnapshotLabel::parse("one").expect("valid")),
    };
    let label = request.label.clone().expect("one");
    let taken = fixture.engine.snapshot(&web, request, "test").await;
    fixture.ended(taken.expect("accepted").accepted).await;
    fixture.restart().await;
    // As if the snapshot had it.
    fixture.rebuild(system(1));
    let restored = fixture.engine.restore_snapshot(&web, &label, "test").await;
    assert_eq!(
        fixture.ended(restored.expect("accepted")).await.failure,
        None
    );
    assert_eq!(fixture.booted(), Some(system(1)));
}

#[tokio::test]
async fn fork_boots_the_copied_system() {
    for is_broken in [false, true] {
        let fixture = agent().await;
        match is_broken {
            true => fixture.rebuild_broken(system(1)),
            false => fixture.rebuild(system(1)),
        }
        fixture.restart().await;
        let stop = fixture.engine.stop(&name("web"), "test").await;
        fixture.ended(stop.expect("accepted")).await;
        let profile = (name("copy"), system(1));
        fixture.host.world().profiles.extend([profile]);
        fixture.host.world().booted.clear();
        let request = ForkRequest {
            name: name("copy"),
            snapshot: None,
        };
        let fork = fixture.engine.fork(&name("web"), request, "test").await;
        assert_eq!(fixture.ended(fork.expect("accepted")).await.failure, None);
        // A copy of a system that did not come up does not either.
        let expected = (!is_broken).then(|| system(1));
        assert_eq!(fixture.host.world().booted, [expected], "{is_broken}");
        let own = fixture.own("copy").await.expect("recorded");
        assert_eq!(own.state == OwnSystemState::Failed, is_broken);
    }
}
