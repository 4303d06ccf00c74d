//! Crashes while guests are prepared at their doors, taken by new guests, and removed.

use std::collections::BTreeSet;
use std::fs;

use innkeeper_model::GuestState;
use innkeeper_model::api::{DoctorReport, SlotReport};

use super::{assert_healthy, clean_up, state, wait_until_idle};
use crate::support::{Client, Daemon, Fixture, Sandbox, Traces, closure, wait_until};

const POOL: &str = "INNKEEPER_POOL_SIZE";

/// The steps before a guest is requested, and those after its seat is not needed any more.
const WITHOUT_GUEST: [&str; 7] = [
    "record-seat",
    "seat-tree",
    "seat-unit",
    "seat-network",
    "seat-ready",
    "remove-seat",
    "forget-seat",
];

#[test]
fn a_pool_survives_a_crash_at_every_step() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let clean = {
        let daemon = sandbox.start();
        let clean = sandbox.traces();
        daemon.stop();
        clean
    };
    let points = points(&sandbox, &closure);
    for step in WITHOUT_GUEST.iter().chain(&["take-seat", "release"]) {
        let point = format!("create:{step}:before");
        assert!(points.contains(&point), "{point} is not in {points:?}");
    }
    for point in &points {
        crash_at(&sandbox, &closure, point, &clean);
    }
    println!("{} points of a pool", points.len());
}

/// The points of a run without a crash: a seat is made, taken, replaced and removed.
fn points(sandbox: &Sandbox, closure: &str) -> BTreeSet<String> {
    let log = sandbox.path().join("points");
    let log_to = log.display().to_string();
    let daemon = sandbox.start_with(&[(POOL, "1"), ("INNKEEPER_CRASH_LOG", &log_to)]);
    let client = sandbox.client();
    wait_until("the pool is full", || is_full(&client));
    client.create("web", closure);
    wait_until("the pool is full again", || is_full(&client));
    clean_up(&client);
    daemon.stop();
    let daemon = sandbox.start_with(&[("INNKEEPER_CRASH_LOG", &log_to)]);
    wait_until("the pool is empty", || is_empty(&client));
    daemon.stop();
    let log = fs::read_to_string(&log).expect("written");
    let of_create = log.lines().filter(|point| point.starts_with("create:"));
    of_create.map(str::to_owned).collect()
}

fn crash_at(sandbox: &Sandbox, closure: &str, point: &str, clean: &Traces) {
    let client = sandbox.client();
    let is_removal = point.contains("remove-seat") || point.contains("forget-seat");
    let fatal = ("INNKEEPER_CRASH_AT", point);
    let crashing = if is_removal {
        let daemon = sandbox.start_with(&[(POOL, "1")]);
        wait_until("the pool is full", || is_full(&client));
        daemon.kill();
        sandbox.spawn(&[fatal])
    } else {
        let mut daemon = sandbox.spawn(&[(POOL, "1"), fatal]);
        wait_until("the pool is full, or the daemon is dead", || {
            daemon.has_ended() || is_full(&client)
        });
        // The daemon may die before or after it responds.
        let body = format!(r#"{{"name":"web","memory":"128M","closure":"{closure}"}}"#);
        drop(client.try_call("POST", "/v1/guests", &body));
        daemon
    };
    let status = crashing.wait();
    assert!(!status.success(), "{point}: the daemon was not killed");

    let daemon: Daemon = sandbox.start();
    wait_until_idle(&client);
    let has_no_guest = WITHOUT_GUEST.iter().any(|step| point.contains(step));
    let accepted = !has_no_guest && point != "create:accept:before";
    // A request may come between the daemon's answer and its death.
    let expected = accepted.then_some(GuestState::Running);
    assert_eq!(state(&client), expected, "{point}");
    assert_healthy(&client, point);
    clean_up(&client);
    wait_until("the pool is empty", || is_empty(&client));
    clean.assert_same(&sandbox.traces(), point);
    daemon.stop();
}

fn is_full(client: &Client) -> bool {
    let Ok(answer) = client.try_call("GET", "/v1/doctor", "") else {
        return false;
    };
    let Ok(report) = serde_json::from_str::<DoctorReport>(&answer.body) else {
        return false;
    };
    let mut checks = report.checks.iter();
    checks.any(|check| check.subject == "door pool" && check.finding.starts_with("1 of 1 "))
}

fn is_empty(client: &Client) -> bool {
    let slots: SlotReport = client.get("/v1/slots");
    slots.taken.is_empty()
}
