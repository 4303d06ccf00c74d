//! Crashes while guests are prepared, at their doors or booted, taken by new guests, and removed.

use std::collections::BTreeSet;
use std::fs;

use innkeeper_model::GuestState;
use innkeeper_model::api::{DoctorReport, SlotReport};

use super::{assert_healthy, clean_up, state, wait_until_idle};
use crate::support::{Client, Daemon, Fixture, Sandbox, Traces, closure, wait_until};

/// A pool of one guest.
struct Pool {
    variables: Vec<(&'static str, String)>,
    /// The subject of its finding.
    subject: &'static str,
    /// The steps of a run, among others.
    steps: &'static [&'static str],
}

impl Pool {
    fn at_doors() -> Self {
        Self {
            variables: vec![("INNKEEPER_POOL_SIZE", "1".to_owned())],
            subject: "door pool",
            steps: &["take-seat", "leave-seat", "release"],
        }
    }

    fn warm(closure: &str) -> Self {
        let warm = format!(r#"[{{closure = "{closure}", size = 1}}]"#);
        let variables = vec![
            ("INNKEEPER_POOL_WARM", warm),
            ("INNKEEPER_POOL_BUSY_PERCENT", "100".to_owned()),
        ];
        Self {
            variables,
            subject: "warm pool",
            steps: &[
                "seat-closure",
                "seat-secrets",
                "seat-release",
                "seat-settle",
                "seat-freeze",
                "take-seat",
                "take-identity",
                "leave-seat",
                "thaw",
            ],
        }
    }

    fn with<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let own = self.variables.iter().map(|(name, value)| (*name, &**value));
        own.chain(more.iter().copied()).collect()
    }

    fn is_full(&self, client: &Client) -> bool {
        let Ok(answer) = client.try_call("GET", "/v1/doctor", "") else {
            return false;
        };
        let Ok(report) = serde_json::from_str::<DoctorReport>(&answer.body) else {
            return false;
        };
        let mut checks = report.checks.iter();
        checks.any(|check| check.subject == self.subject && check.finding.starts_with("1 of 1 "))
    }
}

/// The steps before a guest is requested, and those after its seat is not needed any more.
const WITHOUT_GUEST: [&str; 12] = [
    "record-seat",
    "seat-closure",
    "seat-tree",
    "seat-secrets",
    "seat-unit",
    "seat-network",
    "seat-release",
    "seat-settle",
    "seat-freeze",
    "seat-ready",
    "remove-seat",
    "forget-seat",
];

#[test]
fn a_pool_survives_a_crash_at_every_step() {
    survives(&Pool::at_doors(), &closure(Fixture::Agent));
}

#[test]
fn a_warm_pool_survives_a_crash_at_every_step() {
    let closure = closure(Fixture::Agent);
    survives(&Pool::warm(&closure), &closure);
}

fn survives(pool: &Pool, closure: &str) {
    let sandbox = Sandbox::new();
    let clean = {
        let daemon = sandbox.start();
        let clean = sandbox.traces();
        daemon.stop();
        clean
    };
    let points = points(&sandbox, pool, closure);
    let always = WITHOUT_GUEST.iter().filter(|step| {
        pool.subject == "warm pool"
            || !["closure", "secrets", "release", "settle", "freeze"]
                .iter()
                .any(|warm| **step == format!("seat-{warm}"))
    });
    for step in always.chain(pool.steps) {
        let point = format!("create:{step}:before");
        assert!(points.contains(&point), "{point} is not in {points:?}");
    }
    for point in &points {
        crash_at(&sandbox, pool, closure, point, &clean);
    }
    println!("{} points of a {}", points.len(), pool.subject);
}

/// The points of a run without a crash: a seat is made, taken, replaced and removed.
fn points(sandbox: &Sandbox, pool: &Pool, closure: &str) -> BTreeSet<String> {
    let log = sandbox.path().join("points");
    let log_to = log.display().to_string();
    let daemon = sandbox.start_with(&pool.with(&[("INNKEEPER_CRASH_LOG", &log_to)]));
    let client = sandbox.client();
    wait_until("the pool is full", || pool.is_full(&client));
    drop(create(&client, closure));
    wait_until_idle(&client);
    wait_until("the pool is full again", || pool.is_full(&client));
    clean_up(&client);
    daemon.stop();
    let daemon = sandbox.start_with(&[("INNKEEPER_CRASH_LOG", &log_to)]);
    wait_until("the pool is empty", || is_empty(&client));
    daemon.stop();
    let log = fs::read_to_string(&log).expect("written");
    let of_create = log.lines().filter(|point| point.starts_with("create:"));
    of_create.map(str::to_owned).collect()
}

/// Requests a guest with the default limits: another one would not take a warm guest.
fn create(client: &Client, closure: &str) -> std::io::Result<()> {
    let body = format!(r#"{{"name":"web","closure":"{closure}"}}"#);
    client.try_call("POST", "/v1/guests", &body).map(drop)
}

fn crash_at(sandbox: &Sandbox, pool: &Pool, closure: &str, point: &str, clean: &Traces) {
    let client = sandbox.client();
    let is_removal = point.contains("remove-seat") || point.contains("forget-seat");
    let fatal = ("INNKEEPER_CRASH_AT", point);
    let crashing = if is_removal {
        let daemon = sandbox.start_with(&pool.with(&[]));
        wait_until("the pool is full", || pool.is_full(&client));
        daemon.kill();
        sandbox.spawn(&[fatal])
    } else {
        let mut daemon = sandbox.spawn(&pool.with(&[fatal]));
        wait_until("the pool is full, or the daemon is dead", || {
            daemon.has_ended() || pool.is_full(&client)
        });
        // The daemon may die before or after it responds.
        drop(create(&client, closure));
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

fn is_empty(client: &Client) -> bool {
    let slots: SlotReport = client.get("/v1/slots");
    slots.taken.is_empty()
}
