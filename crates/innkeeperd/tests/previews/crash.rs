//! Crash tests: the daemon is killed before and after each step of a preview, and restarted. The preview must reach the state
//! of its pull request, without leaks and without lost data.
//!
//! The steps are not listed here: a first run records its points.

use std::fs;

use innkeeper_model::api::{DoctorReport, GuestView, Verdict};
use innkeeper_model::preview::api::DeliveryState;
use innkeeper_model::preview::{CommitSha, PreviewState};
use innkeeper_model::{DesiredState, GuestState};

use crate::host::{PreviewHost, app, other_app};
use crate::support::{Daemon, wait_until};

/// An action on a pull request. It returns the end that must be reached.
struct Case {
    name: &'static str,
    /// Requires a live preview, which is kept for the next point.
    needs_preview: bool,
    act: fn(&PreviewHost, usize) -> End,
}

/// The end of an action.
enum End {
    /// This commit is live.
    Live(CommitSha),
    /// The preview is stopped: this commit has no configuration.
    Dropped(CommitSha),
    /// The preview does not exist.
    Gone,
}

const CREATE: Case = Case {
    name: "create",
    needs_preview: false,
    act: |host, _| {
        let sha = host.commit("topic", &[("preview-config.nix", &app())]);
        let action = host.pull(7, "topic", &sha);
        host.try_deliver(7, action);
        End::Live(sha)
    },
};

const UPDATE: Case = Case {
    name: "update",
    needs_preview: true,
    act: |host, turn| {
        // Alternates between two closures, so that the guest is switched.
        let tag = if turn % 2 == 0 { "two" } else { "three" };
        let next = host.commit("topic", &[("preview-config.nix", &other_app(tag))]);
        host.change(7, |pull| pull.head_sha = next.clone());
        host.try_deliver(7, "synchronize");
        End::Live(next)
    },
};

const CLOSE: Case = Case {
    name: "close",
    needs_preview: true,
    act: |host, _| {
        host.change(7, |pull| pull.open = false);
        host.try_deliver(7, "closed");
        End::Gone
    },
};

const IGNORE: Case = Case {
    name: "ignore",
    needs_preview: false,
    act: |host, _| {
        let sha = host.commit("bare", &[("README", "x")]);
        let action = host.pull(7, "bare", &sha);
        host.try_deliver(7, action);
        End::Gone
    },
};

const DROP: Case = Case {
    name: "drop",
    needs_preview: true,
    act: |host, _| {
        let sha = host.remove("topic", "preview-config.nix");
        host.change(7, |pull| pull.head_sha = sha.clone());
        host.try_deliver(7, "synchronize");
        End::Dropped(sha)
    },
};

#[test]
fn an_ignored_pull_request_survives_a_crash_at_every_step() {
    survives_a_crash_at_every_step(&IGNORE);
}

#[test]
fn a_dropped_configuration_survives_a_crash_at_every_step() {
    survives_a_crash_at_every_step(&DROP);
}

#[test]
fn a_preview_creation_survives_a_crash_at_every_step() {
    survives_a_crash_at_every_step(&CREATE);
}

#[test]
fn a_preview_update_survives_a_crash_at_every_step() {
    survives_a_crash_at_every_step(&UPDATE);
}

#[test]
fn a_preview_removal_survives_a_crash_at_every_step() {
    survives_a_crash_at_every_step(&CLOSE);
}

#[test]
fn a_command_survives_a_crash_at_every_step() {
    let mut host = PreviewHost::new();
    let daemon = host.start();
    host.start_webhook();
    let sha = host.open(7, "topic").preview.wanted_sha;
    daemon.stop();
    let log = host.root().join("points");
    let daemon = start(
        &host,
        &CLOSE,
        ("INNKEEPER_CRASH_LOG", &log.display().to_string()),
    );
    stop_by_command(&host, &sha);
    wait_until("the last point is passed", || {
        let passed = fs::read_to_string(&log).expect("points");
        passed.contains(":stop-guest:after")
    });
    daemon.stop();
    let passed = fs::read_to_string(&log).expect("points");
    let mut points: Vec<&str> = Vec::new();
    for point in passed.lines() {
        let is_of_command = point.contains("-command:") || point.contains(":stop-guest:");
        if is_of_command && !points.contains(&point) {
            points.push(point);
        }
    }
    assert_eq!(points.len(), 6, "{points:?}");
    for point in points {
        let daemon = host.start();
        host.command(7, "maintainer", "/preview start");
        host.wait_for_state(7, &sha, PreviewState::Live);
        daemon.stop();
        let crashing = start(&host, &CLOSE, ("INNKEEPER_CRASH_AT", point));
        let (id, status) = host.comment(7, "maintainer", "/preview stop");
        assert_eq!(status, 202, "{point}");
        assert!(
            !crashing.wait().success(),
            "{point}: the daemon was not killed"
        );
        let daemon = host.start();
        wait_until_stopped(&host, &sha, &id);
        let reactions = host.reactions(7, "maintainer");
        assert!(reactions.iter().all(|reaction| reaction == "+1"), "{point}");
        let comments = host.github.with(|world| {
            let comments = world.repos[&host.repo].comments.iter();
            comments.filter(|one| one.author == "maintainer").count()
        });
        assert_eq!(reactions.len(), comments, "{point}");
        daemon.stop();
    }
}

fn stop_by_command(host: &PreviewHost, sha: &CommitSha) {
    let (id, status) = host.comment(7, "maintainer", "/preview stop");
    assert_eq!(status, 202);
    wait_until_stopped(host, sha, &id);
}

/// Waits until the preview and its guest are stopped by a command, which has been executed.
fn wait_until_stopped(host: &PreviewHost, sha: &CommitSha, id: &str) {
    host.wait_for_delivery(id);
    let delivery = host.delivery(id).expect("kept");
    assert_eq!(delivery.state, DeliveryState::Done, "{delivery:?}");
    host.wait_for_state(7, sha, PreviewState::Stopped);
    wait_until("the guest is stopped", || {
        let guest: GuestView = host.client().get("/v1/guests/web-7");
        guest.state == GuestState::Stopped && guest.guest.desired == DesiredState::Stopped
    });
}

fn survives_a_crash_at_every_step(case: &Case) {
    let mut host = PreviewHost::new();
    host.sandbox.start().stop();
    host.start_webhook();
    let points = points(&host, case);
    assert!(points.len() >= 6, "too few points: {points:?}");
    for (turn, point) in points.iter().enumerate() {
        crash_at(&host, case, turn, point);
    }
    let daemon = host.start();
    clean_up(&host);
    daemon.stop();
    println!("{} points of {}", points.len(), case.name);
}

/// Returns the points of an uninterrupted run, without duplicates, in their order.
fn points(host: &PreviewHost, case: &Case) -> Vec<String> {
    prepare(host, case);
    let log = host.root().join("points");
    let daemon = start(
        host,
        case,
        ("INNKEEPER_CRASH_LOG", &log.display().to_string()),
    );
    wait_for_end(host, &(case.act)(host, 1));
    let passed = || fs::read_to_string(&log).unwrap_or_default();
    wait_until("the delivery was processed", || {
        passed().contains("preview:finish-delivery:after")
    });
    daemon.stop();
    let mut points: Vec<String> = Vec::new();
    for point in passed().lines() {
        // The e2e tests cover the engine's points.
        if point.starts_with("preview:") && !points.iter().any(|known| known == point) {
            points.push(point.to_owned());
        }
    }
    points
}

/// Creates or removes the preview as the case requires, with a daemon that does not crash.
fn prepare(host: &PreviewHost, case: &Case) {
    let daemon = host.start();
    match (case.needs_preview, host.preview(7)) {
        (true, None) => drop(host.open(7, "topic")),
        (true, Some(view)) if view.preview.state == PreviewState::Dropped => {
            let sha = host.push(7, "topic", &[("preview-config.nix", &app())]);
            host.wait_for_state(7, &sha, PreviewState::Live);
        }
        (false, Some(_)) => clean_up(host),
        _ => {}
    }
    daemon.stop();
}

/// Starts a daemon and waits for its first resync with GitHub, so that it learns later changes only from the delivery.
fn start(host: &PreviewHost, case: &Case, variable: (&str, &str)) -> Daemon {
    let resyncs = || {
        host.github.with(|world| {
            let requests = &world.requests;
            requests
                .iter()
                .filter(|request| request.path.contains("/pulls?state=open"))
                .count()
        })
    };
    let before = resyncs();
    let daemon = host.sandbox.start_with(&[variable]);
    if case.needs_preview {
        wait_until("the first resync", || resyncs() > before);
    }
    daemon
}

fn crash_at(host: &PreviewHost, case: &Case, turn: usize, point: &str) {
    prepare(host, case);
    let crashing = start(host, case, ("INNKEEPER_CRASH_AT", point));
    let end = (case.act)(host, turn);
    let status = crashing.wait();
    assert!(!status.success(), "{point}: the daemon was not killed");

    let daemon = host.start();
    wait_for_end(host, &end);
    let doctor: DoctorReport = host.client().get("/v1/doctor");
    let broken: Vec<_> = doctor
        .checks
        .iter()
        .filter(|c| c.verdict == Verdict::Broken)
        .collect();
    assert!(broken.is_empty(), "{point}: {broken:#?}");
    daemon.stop();
}

/// Waits until the preview has its final state.
fn wait_for_end(host: &PreviewHost, end: &End) {
    match end {
        End::Live(sha) => {
            host.wait_for_state(7, sha, PreviewState::Live);
            wait_until("its page is served", || {
                host.browse("web-7", "/", "text/html")
                    .1
                    .contains(sha.as_str())
            });
        }
        End::Dropped(sha) => {
            host.wait_for_state(7, sha, PreviewState::Dropped);
            wait_until("the guest is stopped", || {
                let guest: GuestView = host.client().get("/v1/guests/web-7");
                guest.state == GuestState::Stopped
            });
        }
        End::Gone => {
            // Until then, the preview may not have been created.
            let last = host.last_delivery();
            wait_until("the delivery was processed", || {
                let delivery = host.delivery(&last);
                delivery.is_some_and(|delivery| delivery.finished_at.is_some())
            });
            host.wait_until_gone(7);
        }
    }
}

/// Closes the pull request, if it is open, and checks that nothing is left.
fn clean_up(host: &PreviewHost) {
    if host.preview(7).is_some() {
        host.close(7);
        host.wait_until_gone(7);
    }
    let guests: Vec<serde_json::Value> = host.client().get("/v1/guests");
    assert!(guests.is_empty(), "{guests:?}");
    let sites = fs::read_dir(host.root().join("previews")).expect("there");
    let sites: Vec<_> = sites.map(|site| site.expect("entry").file_name()).collect();
    let left = sites
        .iter()
        .filter(|name| name.to_string_lossy().starts_with("web-"));
    assert_eq!(left.count(), 0, "{sites:?}");
}
