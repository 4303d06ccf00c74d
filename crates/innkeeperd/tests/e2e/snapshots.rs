//! Snapshots and forks of agents with the `dir` driver.

use std::fs;
use std::process::Output;
use std::thread;

use innkeeper_model::api::{PoolReport, Verdict};
use innkeeper_model::{GuestState, Snapshot};

use crate::support::{Client, Fixture, Response, Sandbox, closure, wait_until};

/// Fails the test unless the program succeeded, and returns its output.
fn success(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn assert_healthy(client: &Client) {
    let report: innkeeper_model::api::DoctorReport = client.get("/v1/doctor");
    let broken = |check: &&innkeeper_model::api::Check| check.verdict == Verdict::Broken;
    let broken: Vec<_> = report.checks.iter().filter(broken).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn snapshots_restore_and_fork_work_in_the_cli() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    let client = sandbox.client();
    let before = sandbox.traces();
    let agent = |arguments: &[&str]| sandbox.program("agent", arguments, b"");
    let mark = |guest: &str| {
        sandbox
            .state()
            .join(format!("guests/{guest}/rootfs/root/mark"))
    };
    let read = |guest: &str, path: &str| {
        let file = sandbox
            .state()
            .join(format!("guests/{guest}/rootfs/{path}"));
        fs::read_to_string(file).expect(path)
    };
    let web = client.create("web", &closure);
    fs::write(mark("web"), "before").expect("written");

    let rejected = agent(&["snapshot", "web", "--label", "one"]);
    assert_eq!(
        rejected.status.code(),
        Some(4),
        "it is running: {rejected:?}"
    );
    let error = String::from_utf8_lossy(&rejected.stderr).into_owned();
    assert!(error.contains("`agent sleep web`"), "{error}");

    success(&agent(&["stop", "web"]));
    success(&agent(&["snapshot", "web", "--label", "one"]));
    let generated = success(&agent(&["snapshot", "web", "--quiet"]));
    let listed = success(&agent(&["snapshots", "web", "--json"]));
    let listed: Vec<Snapshot> = serde_json::from_str(&listed).expect("JSON");
    let labels: Vec<_> = listed.iter().map(|one| one.label.as_str()).collect();
    assert_eq!(labels, ["one", generated.trim()]);
    success(&agent(&["snapshot", "web", "--delete", generated.trim()]));
    success(&agent(&["start", "web"]));
    fs::write(mark("web"), "after").expect("written");

    let restored = success(&agent(&["restore", "web", "one"]));
    assert!(
        restored.contains("restored from snapshot one and up at 10.100.0.3"),
        "{restored}"
    );
    assert_eq!(read("web", "root/mark"), "before");
    let again = client.guest("web");
    assert_eq!(again.guest.ssh_host_key, web.guest.ssh_host_key);

    success(&agent(&["fork", "web", "copy", "--from", "one"]));
    assert_eq!(read("copy", "root/mark"), "before");
    let copy = client.guest("copy");
    assert_eq!(copy.state, GuestState::Running);
    assert_eq!(copy.guest.limits, web.guest.limits);
    assert_ne!(copy.guest_address, web.guest_address);
    assert_ne!(copy.guest.ssh_host_key, web.guest.ssh_host_key);
    for (file, own) in [("etc/hostname", "copy\n"), ("etc/machine-id", "")] {
        assert_eq!(read("copy", file), own, "{file}");
    }
    let hostname = || success(&agent(&["exec", "copy", "--", "hostname"]));
    wait_until("the copy has its own name", || hostname().trim() == "copy");
    assert_healthy(&client);
    success(&agent(&["destroy", "web"]));
    success(&agent(&["stop", "copy"]));
    success(&agent(&["start", "copy"]));
    assert_eq!(read("copy", "root/mark"), "before");
    success(&agent(&["destroy", "copy"]));
    before.assert_same(&sandbox.traces(), "after both were destroyed");
}

#[test]
fn a_copy_interrupted_by_a_kill_is_restarted() {
    const FILES: usize = 4_000;
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let daemon = sandbox.start();
    let client = sandbox.client();
    client.create("web", &closure);
    client.change("web", "stop");
    let guest = sandbox.state().join("guests/web");
    let many = guest.join("rootfs/many");
    fs::create_dir(&many).expect("made");
    for number in 0..FILES {
        fs::write(many.join(number.to_string()), "x").expect("written");
    }
    let count = |tree: &str| fs::read_dir(guest.join(tree).join("many")).map_or(0, Iterator::count);

    let body = r#"{"label":"one"}"#;
    let taking = client.call("POST", "/v1/guests/web/snapshots", body);
    wait_until("it is being copied", || count("snapshots/.one.new") > 0);
    daemon.kill();
    let whole = guest.join("snapshots/one").exists();
    assert!(!whole, "the copy was complete before the kill");
    let daemon = sandbox.start();
    assert_eq!(client.finish(&taking).failure, None);
    assert_eq!(count("snapshots/one"), FILES);

    let restoring = client.call("POST", "/v1/guests/web/snapshots/one/restore", "");
    wait_until("it is being copied", || count(".rootfs.new") > 0);
    daemon.kill();
    let _daemon = sandbox.start();
    assert_eq!(client.finish(&restoring).failure, None);
    assert_eq!(count("rootfs"), FILES);
    assert!(!guest.join(".rootfs.new").exists());
    assert_healthy(&client);
    client.destroy("web");
}

#[test]
fn one_of_two_concurrent_forks_to_a_name_is_rejected() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    let client = sandbox.client();
    client.create("web", &closure);
    client.change("web", "stop");
    let fork = || client.call("POST", "/v1/guests/web/fork", r#"{"name":"copy"}"#);
    let answers: Vec<Response> = thread::scope(|scope| {
        let both = [scope.spawn(fork), scope.spawn(fork)];
        both.map(|thread| thread.join().expect("joined")).into()
    });
    let (won, lost): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status == 202);
    assert_eq!((won.len(), lost.len()), (1, 1), "{lost:?}");
    assert_eq!(lost[0].failure().code.as_str(), "guest_exists");
    assert_eq!(client.finish(&won[0]).failure, None);
    client.destroy("web");
    client.destroy("copy");
}

#[test]
fn a_destroy_removes_snapshots_and_cancels_their_forks() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    let client = sandbox.client();
    let before = sandbox.traces();
    client.create("web", &closure);
    client.change("web", "stop");
    client.take_snapshot("web", "one");
    let fork = client.call(
        "POST",
        "/v1/guests/web/fork",
        r#"{"name":"copy","snapshot":"one"}"#,
    );
    client.destroy("web");
    // The fork either succeeded before the destroy, or left nothing.
    let copied = client.finish(&fork).failure.is_none();
    if copied {
        client.destroy("copy");
    }
    before.assert_same(&sandbox.traces(), "after the destroy");
}

#[test]
fn orphaned_snapshots_are_reported_and_removed() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    let client = sandbox.client();
    client.create("web", &closure);
    client.change("web", "stop");
    client.take_snapshot("web", "one");
    let snapshots = sandbox.state().join("guests/web/snapshots");
    fs::create_dir_all(snapshots.join("lost/etc")).expect("made");
    let report = sandbox.program("innkeeper", &["doctor"], b"");
    assert_eq!(report.status.code(), Some(7), "{report:?}");
    let swept = success(&sandbox.program("innkeeper", &["gc"], b""));
    assert!(swept.contains("snapshots/lost"), "{swept}");
    assert!(!snapshots.join("lost").exists() && snapshots.join("one").exists());
    assert_healthy(&client);
    client.destroy("web");
}

#[test]
fn pool_reports_the_disk_for_the_dir_driver() {
    let mut sandbox = Sandbox::new();
    sandbox.configure("[storage]\nmin_free = '1024T'");
    let _daemon = sandbox.start();
    let report: PoolReport = sandbox.client().get("/v1/pool");
    assert_eq!(report.driver, "dir");
    assert!(
        report.remedy.is_some() && report.size_bytes > 0,
        "{report:?}"
    );
    let output = success(&sandbox.program("innkeeper", &["pool"], b""));
    assert!(output.contains("The pool is full."), "{output}");
}
