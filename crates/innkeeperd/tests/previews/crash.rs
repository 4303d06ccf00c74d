//! The daemon is killed before and after each step of a preview's life. It is started again, and the preview is as the
//! pull request wants it; nothing is left and nothing lost.
//!
//! The steps are not listed here: a first run writes down the points that it passes.

use std::fs;

use innkeeper_model::api::{DoctorReport, Verdict};
use innkeeper_model::preview::{CommitSha, PreviewState};

use crate::support::{Daemon, wait_until};
use crate::town::{Town, app, other_app};

/// What is done to a pull request, and the commit that is to be live in the end; none when nothing is to be left.
struct Case {
    name: &'static str,
    /// Whether the preview must be there before, and stays for the next point.
    is_there: bool,
    act: fn(&Town, usize) -> Option<CommitSha>,
}

const CREATE: Case = Case {
    name: "create",
    is_there: false,
    act: |town, _| {
        let sha = town.commit("topic", &[("preview-config.nix", &app())]);
        let action = town.pull(7, "topic", &sha);
        town.try_deliver(7, action);
        Some(sha)
    },
};

const UPDATE: Case = Case {
    name: "update",
    is_there: true,
    act: |town, turn| {
        // Another closure each time, of two: the guest is switched.
        let tag = if turn % 2 == 0 { "two" } else { "three" };
        let next = town.commit("topic", &[("preview-config.nix", &other_app(tag))]);
        town.change(7, |pull| pull.head_sha = next.clone());
        town.try_deliver(7, "synchronize");
        Some(next)
    },
};

const CLOSE: Case = Case {
    name: "close",
    is_there: true,
    act: |town, _| {
        town.change(7, |pull| pull.open = false);
        town.try_deliver(7, "closed");
        None
    },
};

#[test]
fn a_preview_that_is_made_survives_a_crash_at_every_step() {
    survives_a_crash_at_every_step(&CREATE);
}

#[test]
fn a_preview_that_is_updated_survives_a_crash_at_every_step() {
    survives_a_crash_at_every_step(&UPDATE);
}

#[test]
fn a_preview_that_is_closed_survives_a_crash_at_every_step() {
    survives_a_crash_at_every_step(&CLOSE);
}

fn survives_a_crash_at_every_step(case: &Case) {
    let mut town = Town::new();
    town.sandbox.start().stop();
    town.start_webhook();
    let points = points(&town, case);
    assert!(points.len() >= 10, "too few points to be true: {points:?}");
    for (turn, point) in points.iter().enumerate() {
        crash_at(&town, case, turn, point);
    }
    let daemon = town.start();
    tidy(&town);
    daemon.stop();
    println!("{} points of {}", points.len(), case.name);
}

/// The points that an undisturbed run passes, each once, in their order.
fn points(town: &Town, case: &Case) -> Vec<String> {
    prepare(town, case);
    let log = town.root().join("points");
    let daemon = start(
        town,
        case,
        ("INNKEEPER_CRASH_LOG", &log.display().to_string()),
    );
    reached(town, &(case.act)(town, 1));
    let passed = || fs::read_to_string(&log).unwrap_or_default();
    wait_until("the delivery was acted on", || {
        passed().contains("preview:finish-delivery:after")
    });
    daemon.stop();
    let mut points: Vec<String> = Vec::new();
    for point in passed().lines() {
        // The engine's own steps have their own tests.
        if point.starts_with("preview:") && !points.iter().any(|known| known == point) {
            points.push(point.to_owned());
        }
    }
    points
}

/// Sees that the preview is there, or not, as the case needs it. The daemon that does it is no doomed one.
fn prepare(town: &Town, case: &Case) {
    let daemon = town.start();
    match (case.is_there, town.preview(7)) {
        (true, None) => drop(town.open(7, "topic")),
        (false, Some(_)) => tidy(town),
        _ => {}
    }
    daemon.stop();
}

/// Starts a daemon and waits until it has compared its previews with GitHub: what happens to a pull request after that,
/// it learns from the delivery.
fn start(town: &Town, case: &Case, variable: (&str, &str)) -> Daemon {
    let compared = || {
        town.github.with(|world| {
            let requests = &world.requests;
            requests
                .iter()
                .filter(|request| request.path.contains("/pulls?state=open"))
                .count()
        })
    };
    let before = compared();
    let daemon = town.sandbox.start_with(&[variable]);
    if case.is_there {
        wait_until("the daemon has asked GitHub", || compared() > before);
    }
    daemon
}

fn crash_at(town: &Town, case: &Case, turn: usize, point: &str) {
    prepare(town, case);
    let doomed = start(town, case, ("INNKEEPER_CRASH_AT", point));
    let end = (case.act)(town, turn);
    let status = doomed.wait();
    assert!(!status.success(), "{point}: the daemon was not killed");

    let daemon = town.start();
    reached(town, &end);
    let doctor: DoctorReport = town.client().get("/v1/doctor");
    let broken: Vec<_> = doctor
        .checks
        .iter()
        .filter(|c| c.verdict == Verdict::Broken)
        .collect();
    assert!(broken.is_empty(), "{point}: {broken:#?}");
    daemon.stop();
}

/// Waits until the pull request has what it wants.
fn reached(town: &Town, end: &Option<CommitSha>) {
    match end {
        Some(sha) => {
            town.settled(7, sha, PreviewState::Live);
            wait_until("its page is there", || {
                town.browse("web-7", "/", "text/html")
                    .1
                    .contains(sha.as_str())
            });
        }
        None => town.gone(7),
    }
}

/// Closes the pull request, if it is open, and sees that nothing is left.
fn tidy(town: &Town) {
    if town.preview(7).is_some() {
        town.close(7);
        town.gone(7);
    }
    let guests: Vec<serde_json::Value> = town.client().get("/v1/guests");
    assert!(guests.is_empty(), "{guests:?}");
    let sites = fs::read_dir(town.root().join("previews")).expect("there");
    let sites: Vec<_> = sites.map(|site| site.expect("entry").file_name()).collect();
    let left = sites
        .iter()
        .filter(|name| name.to_string_lossy().starts_with("web-"));
    assert_eq!(left.count(), 0, "{sites:?}");
}
