//! Changes of the closure of an existing agent.

use std::sync::Arc;
use std::time::Duration;

use innkeeper_facilities::fake::{ExecResult, FakeHost, a_closure};
use innkeeper_model::api::{Accepted, SetRequest};
use innkeeper_model::{
    ChangeOutcome, Code, EventKind, Explain, Guest, GuestState, MemorySize, Operation,
    OperationState, StorePath, Trust,
};
use parking_lot::Mutex;

use crate::fixture::{Fixture, engine, fixture, name};

fn other() -> StorePath {
    StorePath::parse("/nix/store/00000000000000000000000000000000-other").expect("valid")
}

fn to(closure: StorePath) -> SetRequest {
    SetRequest {
        closure: Some(closure),
        ..SetRequest::default()
    }
}

/// Lets closures have systemd and a program that switches, and answers commands in guests. Returns the commands.
fn respond(
    host: &FakeHost,
    answer: impl Fn(&str) -> (i32, String) + Send + Sync + 'static,
) -> Arc<Mutex<Vec<String>>> {
    let commands = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&commands);
    let mut world = host.world();
    world.programs = ["bin/switch-to-configuration", "sw/bin/systemctl"].into();
    world.exec = Some(Arc::new(move |_, request| {
        let command = request.command.join(" ");
        let (status, stdout) = answer(&command);
        log.lock().push(command);
        ExecResult {
            status,
            stdout,
            stderr: "a line of the guest\n".to_owned(),
        }
    }));
    commands
}

/// Answers as a system without a failed unit does.
fn healthy(command: &str) -> (i32, String) {
    match command {
        _ if command.contains("is-system-running") => (0, "running\n".to_owned()),
        _ if command.contains("list-units") => (0, "[]".to_owned()),
        _ => (0, String::new()),
    }
}

impl Fixture {
    async fn set(&self, request: SetRequest) -> Operation {
        let accepted = self.requested(request).await;
        self.ended(accepted).await
    }

    async fn requested(&self, request: SetRequest) -> Accepted {
        let web = name("web");
        let set = self.engine.set(&web, request, "test", Trust::Host);
        set.await.expect("accepted")
    }

    async fn record(&self) -> Guest {
        self.engine.guest(&name("web")).await.expect("exists")
    }

    /// Returns the outcome of the last change and the closure, and checks that nothing of the change is left.
    async fn settled(&self) -> (ChangeOutcome, StorePath) {
        let guest = self.record().await;
        assert_eq!(guest.change, None);
        assert!(self.host.world().former_roots.is_empty(), "a root is left");
        let last = guest.last_change.expect("a change");
        (last.outcome, guest.closure.expect("known"))
    }

    fn starts(&self) -> u32 {
        self.host.world().starts
    }
}

#[tokio::test]
async fn running_system_switches_in_place() {
    let fixture = fixture();
    let commands = respond(&fixture.host, healthy);
    assert_eq!(fixture.create("web").await.failure, None);
    assert_eq!(fixture.set(to(other())).await.failure, None);
    assert_eq!(fixture.settled().await, (ChangeOutcome::Switched, other()));
    assert_eq!(fixture.starts(), 1, "it was not restarted");
    let switch = format!("{}/bin/switch-to-configuration test", other());
    assert!(commands.lock().contains(&switch), "{commands:?}");
}

#[tokio::test]
async fn guest_is_restarted_if_it_cannot_switch() {
    for (what, status) in [("has no program", None), ("asks for a restart", Some(100))] {
        let fixture = fixture();
        respond(&fixture.host, move |command| match status {
            Some(status) if command.contains("switch-to-configuration") => (status, String::new()),
            _ => healthy(command),
        });
        if status.is_none() {
            fixture.host.world().programs.clear();
        }
        fixture.create("web").await;
        assert_eq!(fixture.set(to(other())).await.failure, None, "{what}");
        let expected = (ChangeOutcome::Restarted, other());
        assert_eq!(fixture.settled().await, expected, "{what}");
        assert_eq!(fixture.starts(), 2, "{what}");
        assert_eq!(fixture.state("web").await, Some(GuestState::Running));
    }
}

/// The host mounts its store for a guest's own Nix only when the guest starts.
#[tokio::test]
async fn guest_is_restarted_if_only_one_closure_builds_with_nix() {
    for (with_nix, outcome) in [
        (vec![other()], ChangeOutcome::Restarted),
        (vec![a_closure()], ChangeOutcome::Restarted),
        (vec![a_closure(), other()], ChangeOutcome::Switched),
    ] {
        let fixture = fixture();
        respond(&fixture.host, healthy);
        fixture.host.world().with_nix.extend(with_nix.clone());
        fixture.create("web").await;
        assert_eq!(fixture.set(to(other())).await.failure, None);
        assert_eq!(fixture.settled().await, (outcome, other()), "{with_nix:?}");
    }
}

#[tokio::test]
async fn other_limits_and_a_request_restart_the_guest() {
    let fixture = fixture();
    respond(&fixture.host, healthy);
    fixture.create("web").await;
    let request = SetRequest {
        memory: Some(MemorySize::from_bytes(2 << 30)),
        ..SetRequest::default()
    };
    assert_eq!(fixture.set(request.clone()).await.failure, None);
    assert_eq!(
        fixture.settled().await,
        (ChangeOutcome::Restarted, a_closure())
    );
    assert_eq!(fixture.record().await.limits.memory.bytes(), 2 << 30);
    // The same limits are no change.
    assert_eq!(fixture.set(request).await.failure, None);
    assert_eq!(fixture.settled().await.0, ChangeOutcome::Unchanged);
    assert_eq!(fixture.starts(), 2);
    let request = SetRequest {
        restart: true,
        ..SetRequest::default()
    };
    assert_eq!(fixture.set(request).await.failure, None);
    assert_eq!(fixture.starts(), 3);
}

#[tokio::test]
async fn stopped_guest_gets_the_closure_at_its_next_start() {
    let fixture = fixture();
    respond(&fixture.host, healthy);
    fixture.create("web").await;
    let web = name("web");
    let stop = fixture.engine.stop(&web, "test");
    fixture.ended(stop.await.expect("accepted")).await;
    assert_eq!(fixture.set(to(other())).await.failure, None);
    let expected = (ChangeOutcome::AtNextStart, other());
    assert_eq!(fixture.settled().await, expected);
    assert_eq!(fixture.starts(), 1);
}

#[tokio::test]
async fn switch_that_fails_is_undone_in_place() {
    let fixture = fixture();
    let commands = respond(&fixture.host, |command| {
        let is_new = command.starts_with(other().to_string().as_str());
        match is_new && command.contains("switch-to-configuration") {
            true => (4, String::new()),
            false => healthy(command),
        }
    });
    fixture.create("web").await;
    let failure = fixture.set(to(other())).await.failure.expect("fails");
    assert_eq!(failure.code, Code::SwitchFailed);
    assert_eq!(failure.log, ["a line of the guest"]);
    let expected = (ChangeOutcome::RolledBack, a_closure());
    assert_eq!(fixture.settled().await, expected);
    assert_eq!(fixture.starts(), 1, "it was not restarted");
    let back = format!("{}/bin/switch-to-configuration test", a_closure());
    assert!(commands.lock().contains(&back), "{commands:?}");
    assert_eq!(fixture.state("web").await, Some(GuestState::Running));
}

/// The events of the daemon are not the guest's to fill.
#[tokio::test]
async fn output_of_a_switch_is_bounded() {
    let lines = |count: usize| "a line of a hostile guest\n".repeat(count);
    for (lines, is_refused) in [(lines(5_000), false), (lines(400_000), true)] {
        let fixture = fixture();
        respond(&fixture.host, move |command| {
            let is_new = command.starts_with(other().to_string().as_str());
            match is_new && command.contains("switch-to-configuration") {
                true => (0, lines.clone()),
                false => healthy(command),
            }
        });
        fixture.create("web").await;
        let mut events = fixture.engine.journal().subscribe();
        let failure = fixture.set(to(other())).await.failure;
        assert_eq!(failure.is_some(), is_refused, "{failure:?}");
        if let Some(failure) = failure {
            assert_eq!(failure.code, Code::SwitchFailed);
            assert!(failure.message.contains("8 MiB"), "{failure}");
            assert_eq!(failure.log.len(), 20, "the last lines");
        }
        let mut reports = 0;
        while let Ok(event) = events.try_recv() {
            reports += usize::from(matches!(event.kind, EventKind::Progress { .. }));
        }
        assert!(reports < 100, "{reports} reports");
    }
}

/// A host that lost power has restarted the guest, which is no fault of the closure.
#[tokio::test]
async fn guest_that_is_gone_after_a_switch_is_started_with_the_closure() {
    for (ends, outcome, closure) in [
        (None, ChangeOutcome::Switched, other()),
        (Some(1), ChangeOutcome::RolledBack, a_closure()),
    ] {
        let fixture = fixture();
        let host = fixture.host.clone();
        let web = name("web");
        let guest = web.clone();
        let first = Mutex::new(true);
        respond(&fixture.host, move |command| {
            let is_new = command.starts_with(other().to_string().as_str());
            if is_new && command.contains("switch-to-configuration") && *first.lock() {
                *first.lock() = false;
                match ends {
                    Some(status) => host.end_quietly(&guest, status),
                    None => drop(host.world().units.remove(&guest)),
                }
            }
            healthy(command)
        });
        fixture.create("web").await;
        let failure = fixture.set(to(other())).await.failure;
        assert_eq!(failure.is_some(), ends.is_some(), "{failure:?}");
        assert_eq!(fixture.settled().await, (outcome, closure), "{ends:?}");
        assert_eq!(fixture.state("web").await, Some(GuestState::Running));
        assert_eq!(fixture.starts(), 2, "{ends:?}");
    }
}

#[tokio::test]
async fn system_that_does_not_switch_back_is_restarted() {
    let fixture = fixture();
    respond(&fixture.host, |command| {
        match command.contains("switch-to-configuration") {
            true => (2, String::new()),
            false => healthy(command),
        }
    });
    fixture.create("web").await;
    let failure = fixture.set(to(other())).await.failure.expect("fails");
    assert_eq!(failure.code, Code::SwitchFailed);
    let expected = (ChangeOutcome::RolledBack, a_closure());
    assert_eq!(fixture.settled().await, expected);
    assert_eq!(fixture.starts(), 2);
}

#[tokio::test]
async fn only_units_that_did_not_fail_before_are_a_reason_to_roll_back() {
    let failed = Arc::new(Mutex::new(r#"[{"unit":"old.service"}]"#));
    let fixture = fixture();
    let units = Arc::clone(&failed);
    respond(&fixture.host, move |command| match command {
        _ if command.contains("is-system-running") => (1, "degraded\n".to_owned()),
        _ if command.contains("list-units") => (0, (*units.lock()).to_owned()),
        _ => {
            // The switch.
            if command.starts_with(other().to_string().as_str()) {
                *units.lock() = r#"[{"unit":"old.service"},{"unit":"new.service"}]"#;
            }
            (0, String::new())
        }
    });
    fixture.create("web").await;
    let failure = fixture.set(to(other())).await.failure.expect("fails");
    assert_eq!(failure.code, Code::GuestUnhealthy);
    assert!(failure.message.contains("new.service"), "{failure}");
    assert!(!failure.message.contains("old.service"), "{failure}");
    let expected = (ChangeOutcome::RolledBack, a_closure());
    assert_eq!(fixture.settled().await, expected);

    let third = StorePath::parse("/nix/store/11111111111111111111111111111111-third");
    let third = third.expect("valid");
    assert_eq!(fixture.set(to(third.clone())).await.failure, None);
    assert_eq!(fixture.settled().await, (ChangeOutcome::Switched, third));
}

#[tokio::test]
async fn guest_that_does_not_start_gets_its_former_closure_back() {
    for step in ["closure.ensure", "unit.ensure", "unit.release"] {
        let fixture = fixture();
        fixture.create("web").await;
        fixture.host.fail(step, 1);
        let failure = fixture.set(to(other())).await.failure;
        let failure = failure.unwrap_or_else(|| panic!("{step} did not fail"));
        assert!(failure.message.contains(step), "{step}: {failure}");
        assert_eq!(fixture.settled().await.1, a_closure(), "{step}");
        assert_eq!(
            fixture.state("web").await,
            Some(GuestState::Running),
            "{step}"
        );
    }
}

#[tokio::test]
async fn failed_build_does_not_affect_the_guest() {
    let fixture = fixture();
    fixture.create("web").await;
    fixture
        .host
        .fail_with("closure.build", 1, Code::BuildFailed);
    let request = SetRequest {
        flake: Some("/fleet#other".to_owned()),
        ..SetRequest::default()
    };
    fixture.host.builds.notify_one();
    let failure = fixture.set(request.clone()).await.failure.expect("fails");
    assert_eq!(failure.code, Code::BuildFailed);
    assert_eq!(
        fixture.settled().await,
        (ChangeOutcome::Unchanged, a_closure())
    );
    let calls = fixture.host.world().calls.clone();
    assert!(!calls.contains(&"unit.stop web".to_owned()), "{calls:?}");

    fixture.host.world().next_build = Some(other());
    fixture.host.builds.notify_one();
    assert_eq!(fixture.set(request).await.failure, None);
    assert_eq!(fixture.settled().await, (ChangeOutcome::Restarted, other()));
}

#[tokio::test]
async fn rollback_that_fails_is_retried() {
    let fixture = fixture();
    fixture.create("web").await;
    // The start with the requested closure, and the first attempt to start with the former one.
    fixture.host.fail("unit.ensure", 2);
    let failure = fixture.set(to(other())).await.failure;
    assert!(failure.is_some());
    fixture
        .until("it runs again", async || {
            fixture.state("web").await == Some(GuestState::Running)
                && fixture.record().await.change.is_none()
        })
        .await;
    let expected = (ChangeOutcome::RolledBack, a_closure());
    assert_eq!(fixture.settled().await, expected);
}

#[tokio::test]
async fn destroy_supersedes_a_change_that_builds() {
    let fixture = fixture();
    fixture.create("web").await;
    let request = SetRequest {
        flake: Some("/fleet#other".to_owned()),
        ..SetRequest::default()
    };
    let accepted = fixture.requested(request).await;
    assert_eq!(fixture.destroy("web").await.failure, None);
    let superseded = fixture.ended(accepted).await.failure.expect("superseded");
    assert_eq!(superseded.code, Code::GuestBusy);
    assert!(fixture.host.world().is_empty());
}

#[tokio::test]
async fn restart_of_the_daemon_resumes_a_change() {
    let directory = tempfile::tempdir().expect("tempdir");
    let host = FakeHost::new();
    let first = Fixture {
        engine: engine(&host, directory.path(), Duration::ZERO),
        host: host.clone(),
        _directory: directory,
    };
    first.create("web").await;
    let request = SetRequest {
        flake: Some("/fleet#other".to_owned()),
        ..SetRequest::default()
    };
    // The build never ends: dropping the engine is like a crash.
    let accepted = first.requested(request).await;
    first.engine.store().clone().close().await.expect("closed");
    let second = Fixture {
        engine: engine(&host, first._directory.path(), Duration::ZERO),
        host,
        _directory: first._directory,
    };
    second.host.world().next_build = Some(other());
    second.engine.restore().await.expect("restored");
    second
        .until("the build has ended", async || {
            second.host.builds.notify_waiters();
            second.record().await.closure == Some(other())
        })
        .await;
    assert_eq!(second.ended(accepted).await.state, OperationState::Done);
    assert_eq!(second.settled().await, (ChangeOutcome::Restarted, other()));
}

#[tokio::test]
async fn invalid_requests_change_nothing() {
    let fixture = fixture();
    fixture.create("web").await;
    let member = SetRequest {
        flake: Some("/elsewhere#web".to_owned()),
        ..SetRequest::default()
    };
    let (web, none) = (name("web"), name("none"));
    for (request, trust, code) in [
        (SetRequest::default(), Trust::Host, Code::InvalidRequest),
        (member, Trust::Member, Code::FlakeRefused),
    ] {
        let set = fixture.engine.set(&web, request, "test", trust);
        assert_eq!(set.await.expect_err("refused").code(), code);
    }
    let missing = fixture.engine.set(&none, to(other()), "test", Trust::Host);
    assert_eq!(
        missing.await.expect_err("refused").code(),
        Code::GuestNotFound
    );
    assert_eq!(fixture.record().await.last_change, None);
}
