//! Builds of closures before somebody requests them.

use std::fs;
use std::path::Path;

use innkeeper_model::api::{Accepted, Status};
use innkeeper_model::{Code, EventKind, Operation, OperationId, OperationState, Verb};

use crate::support::{Client, Fixture, Sandbox, closure, flake, wait_until};

fn prefetch(client: &Client) -> Operation {
    client.finish(&client.call("POST", "/v1/prefetches", ""))
}

/// Returns the closures that an operation has built, after its end.
fn built(client: &Client, operation: OperationId) -> Vec<String> {
    let events = client.events(&format!("operation={operation}&follow=true"));
    let closures = events.into_iter().filter_map(|event| match event.kind {
        EventKind::Built { closure, .. } => Some(closure.to_string()),
        _ => None,
    });
    closures.collect()
}

/// Returns the last prefetch that was accepted.
fn last(client: &Client) -> OperationId {
    let events = client.events("after=0");
    let mut accepted = events.into_iter().filter_map(|event| match event.kind {
        EventKind::Accepted {
            verb: Verb::Prefetch,
        } => event.operation,
        _ => None,
    });
    accepted.next_back().expect("one")
}

/// Returns the niceness of each process whose command line contains a text.
fn niceness(text: &str) -> Vec<i32> {
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let niceness = |process: &Path| -> Option<i32> {
        let command = fs::read_to_string(process.join("cmdline")).ok()?;
        let stat = fs::read_to_string(process.join("stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        // proc_pid_stat(5): field 19; the fields after the name begin with number 3.
        let nice = fields.split_whitespace().nth(16)?.parse().ok()?;
        command.replace('\0', " ").contains(text).then_some(nice)
    };
    processes
        .filter_map(|process| niceness(&process.path()))
        .collect()
}

#[test]
fn prefetch_builds_the_flakes_of_agents_each_once() {
    let mut sandbox = Sandbox::new();
    sandbox.configure(&format!("flake = '{}'", flake(Fixture::Agent)));
    let _daemon = sandbox.start();
    let client = sandbox.client();
    let body = format!(r#"{{"name":"web","flake":"{}"}}"#, flake(Fixture::Agent));
    let created = client.finish(&client.call("POST", "/v1/guests", &body));
    assert_eq!(created.failure, None);
    let operation = prefetch(&client);
    assert_eq!(operation.state, OperationState::Done, "{operation:?}");
    assert_eq!(built(&client, operation.id), [closure(Fixture::Agent)]);
    client.destroy("web");
}

#[test]
fn flake_that_does_not_build_is_reported_and_fails_no_prefetch() {
    let mut sandbox = Sandbox::new();
    let failing = flake(Fixture::Agent).replace("#agent", "#failing");
    sandbox.configure(&format!("flake = '{failing}'"));
    let _daemon = sandbox.start();
    let client = sandbox.client();
    let operation = prefetch(&client);
    assert_eq!(operation.state, OperationState::Done, "{operation:?}");
    let events = client.events(&format!("operation={}", operation.id));
    let is_failure = |kind: &EventKind| matches!(kind, EventKind::StepFailed { failure, .. } if failure.code == Code::BuildFailed);
    assert!(events.iter().any(|event| is_failure(&event.kind)));
    assert!(built(&client, operation.id).is_empty());
}

#[test]
fn prefetch_is_refused_without_space() {
    let mut sandbox = Sandbox::new();
    sandbox.configure(&format!(
        "flake = '{}'\n[storage]\nmin_free = '1024T'",
        flake(Fixture::Agent)
    ));
    let _daemon = sandbox.start();
    let client = sandbox.client();
    let operation = prefetch(&client);
    assert_eq!(operation.failure.expect("refused").code, Code::DiskFull);
    assert!(built(&client, operation.id).is_empty());
}

#[test]
fn prefetch_continues_after_a_crash_at_every_step() {
    let mut sandbox = Sandbox::new();
    sandbox.configure(&format!("flake = '{}'", flake(Fixture::Agent)));
    let client = sandbox.client();
    for point in [
        "prefetch-closure:before",
        "prefetch-closure:after",
        "finish:before",
        "finish:after",
    ] {
        let point = format!("prefetch:{point}");
        let crashing = sandbox.start_with(&[("INNKEEPER_CRASH_AT", &point)]);
        drop(client.try_call("POST", "/v1/prefetches", ""));
        assert!(!crashing.wait().success(), "{point}");
        let daemon = sandbox.start();
        let operation = last(&client);
        let expected = vec![closure(Fixture::Agent)];
        let made = built(&client, operation);
        assert!(made.ends_with(&expected), "{point}: {made:?}");
        let ended: Operation = client.get(&format!("/v1/operations/{operation}"));
        assert_eq!(ended.state, OperationState::Done, "{point}: {ended:?}");
        daemon.stop();
    }
}

#[test]
fn prefetch_is_alone_and_slow_and_continues_after_a_stop() {
    let mut sandbox = Sandbox::new();
    let flake = sandbox.path().join("slow");
    fs::create_dir(&flake).expect("made");
    fs::copy("/bin/busybox", flake.join("busybox")).expect("copied");
    // Unlike that of any other test.
    let builder = format!("sleep 36{}", std::process::id());
    let write = |command: &str| {
        let text = r#"{ outputs = { self }: { slow = derivation { name = "slow"; system = builtins.currentSystem or "x86_64-linux"; builder = "${./.}/busybox"; args = [ ARGS ]; }; }; }"#;
        let words: Vec<_> = command
            .split(' ')
            .map(|word| format!("\"{word}\""))
            .collect();
        let text = text.replace("ARGS", &words.join(" "));
        fs::write(flake.join("flake.nix"), text).expect("written");
    };
    write(&builder);
    sandbox.configure(&format!("flake = 'path:{}#slow'", flake.display()));
    let daemon = sandbox.start();
    let client = sandbox.client();
    let start = || -> Accepted { client.call("POST", "/v1/prefetches", "").read() };
    let first = start();
    wait_until("it builds", || !niceness(&builder).is_empty());
    assert!(niceness(&builder).iter().all(|nice| *nice == 19));
    assert_eq!(start().operation, first.operation, "it is alone");
    daemon.stop();
    wait_until("the build has ended", || niceness(&builder).is_empty());
    // It continues where it was stopped.
    let daemon = sandbox.start();
    wait_until("it builds again", || !niceness(&builder).is_empty());
    let status: Status = client.get("/v1/status");
    let running: Vec<_> = status.operations.iter().map(|one| one.id).collect();
    assert_eq!(running, [first.operation]);
    daemon.kill();
    wait_until("the build has ended", || niceness(&builder).is_empty());
    write("false");
    let _daemon = sandbox.start();
    assert!(built(&client, first.operation).is_empty());
    let ended: Operation = client.get(&format!("/v1/operations/{}", first.operation));
    assert_eq!(ended.state, OperationState::Done, "{ended:?}");
}
