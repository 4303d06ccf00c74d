//! A pull request is opened, pushed to and closed.

use innkeeper_model::Code;
use innkeeper_model::preview::PreviewState;

use crate::support::wait_until;
use crate::town::{Town, other_app};

#[test]
fn a_pull_request_becomes_a_page_and_goes_without_a_trace() {
    let mut town = Town::new();
    let daemon = town.start();
    town.start_webhook();
    let view = town.open(7, "feature/x");
    assert_eq!(view.url, "http://web-7.localhost:8080");
    let sha = view.preview.live_sha.expect("live");
    let page = town.page("web-7");
    assert!(page.contains("<h1>feature/x</h1>"), "{page}");
    assert!(
        page.contains(&format!("Commit {sha}, prepared 1 times")),
        "{page}"
    );
    wait_until("the pull request says so", || {
        let comments = town.comments(7);
        comments.len() == 1 && comments[0].contains("http://web-7.localhost:8080")
    });

    // The same closure: the guest goes on, and what the app keeps stays.
    let before = town.client().guest("web-7");
    let pushed = town.push(7, "feature/x", &[("README", "two")]);
    town.settled(7, &pushed, PreviewState::Live);
    let page = town.page("web-7");
    assert!(
        page.contains(&format!("Commit {pushed}, prepared 2 times")),
        "{page}"
    );
    let after = town.client().guest("web-7");
    assert_eq!(before.guest.closure, after.guest.closure);
    assert_eq!(before.guest.slot, after.guest.slot);

    // Another closure: the guest is switched to it, with its data and its address.
    let pushed = town.push(
        7,
        "feature/x",
        &[("preview-config.nix", &other_app("three"))],
    );
    town.settled(7, &pushed, PreviewState::Live);
    let page = town.page("web-7");
    assert!(
        page.contains(&format!("Commit {pushed}, prepared 3 times")),
        "{page}"
    );
    let switched = town.client().guest("web-7");
    assert_ne!(switched.guest.closure, after.guest.closure);
    assert_eq!(switched.guest_address, after.guest_address);
    assert_eq!(town.inside("web-7", &["cat", "/etc/tag"]).trim(), "three");

    town.close(7);
    town.gone(7);
    let (status, _) = town.browse("web-7", "/", "text/html");
    assert_eq!(status, 404);
    wait_until("the comment says so", || {
        town.comments(7)[0].contains("removed")
    });
    daemon.stop();
}

#[test]
fn a_commit_that_fails_leaves_the_last_good_one_in_service() {
    let mut town = Town::new();
    let daemon = town.start();
    town.start_webhook();
    let good = town.open(7, "topic").preview.live_sha.expect("live");

    // Not Nix at all: nothing is touched.
    let bad = town.push(7, "topic", &[("preview-config.nix", "{ this is not nix")]);
    let view = town.settled(7, &bad, PreviewState::Failed);
    assert_eq!(
        view.preview.fault.expect("why").code,
        Code::PreviewConfigInvalid
    );
    assert_eq!(view.preview.live_sha, Some(good.clone()));
    assert!(town.page("web-7").contains(good.as_str()));

    // Nor does the last good one stay away, if it was not there by then.
    town.inside("web-7", &["systemctl", "stop", "preview-app"]);
    let bad = town.push(7, "topic", &[("preview-config.nix", "{ nor is this")]);
    town.settled(7, &bad, PreviewState::Failed);
    assert!(town.page("web-7").contains(good.as_str()));

    // The app does not come up: the guest goes back.
    let silent = other_app("silent").replace("exec httpd -f -p 3000", "exec httpd -f -p 3001");
    let bad = town.push(7, "topic", &[("preview-config.nix", &silent)]);
    let view = town.settled(7, &bad, PreviewState::Failed);
    let fault = view.preview.fault.expect("why");
    assert_eq!(fault.code, Code::AppUnhealthy);
    assert!(
        fault.log.iter().any(|line| line.contains("serving")),
        "{fault:?}"
    );
    assert_eq!(view.preview.live_sha, Some(good.clone()));
    assert!(town.page("web-7").contains(good.as_str()));
    wait_until("the pull request says why", || {
        town.comments(7)[0].contains("3000")
    });

    // Nor does a service that takes too long to start, and that is no fault of the host's.
    let slow = other_app("slow")
        .replace("Restart = \"always\";", "Type = \"oneshot\";")
        .replace("exec httpd -f -p 3000", "sleep 50 #");
    let bad = town.push(7, "topic", &[("preview-config.nix", &slow)]);
    let view = town.settled(7, &bad, PreviewState::Failed);
    let fault = view.preview.fault.expect("why");
    assert_eq!(
        fault.message,
        "the app service 'preview-app.service' did not start within 5 s"
    );
    assert!(town.page("web-7").contains(good.as_str()));

    let mended = town.push(7, "topic", &[("preview-config.nix", &crate::town::app())]);
    town.settled(7, &mended, PreviewState::Live);
    assert!(town.page("web-7").contains(mended.as_str()));
    daemon.stop();
}

#[test]
fn what_was_half_set_up_when_it_was_overtaken_does_not_stay_in_service() {
    let mut town = Town::new();
    let daemon = town.start();
    town.start_webhook();
    let slow = "test ! -e ../slow || { rm ../slow; sleep 50; }; echo \"prepared";
    let app = crate::town::app().replace("echo \"prepared", slow);
    let good = town.commit("topic", &[("preview-config.nix", &app)]);
    town.pull(7, "topic", &good);
    town.deliver(7, "opened");
    town.settled(7, &good, PreviewState::Live);

    // The same closure, so the app goes on and serves what is in its directory.
    town.inside("web-7", &["touch", "/home/preview/slow"]);
    let half = town.push(7, "topic", &[("README", "two")]);
    wait_until("half of it is there", || {
        let (_, page) = town.browse("web-7", "/", "text/html");
        page.contains(half.as_str())
    });
    let bad = town.push(7, "topic", &[("preview-config.nix", "{ this is not nix")]);
    town.settled(7, &bad, PreviewState::Failed);
    assert!(town.page("web-7").contains(good.as_str()));
    daemon.stop();
}

#[test]
fn the_newest_push_wins_over_one_that_is_being_set_up() {
    let mut town = Town::new();
    let daemon = town.start();
    town.start_webhook();
    town.open(7, "topic");
    let slow = crate::town::app().replace("mkdir -p ${app}", "sleep 50; mkdir -p ${app}");
    let slow = town.push(7, "topic", &[("preview-config.nix", &slow)]);
    town.settled(7, &slow, PreviewState::Updating);
    let newest = town.push(7, "topic", &[("preview-config.nix", &crate::town::app())]);
    town.settled(7, &newest, PreviewState::Live);
    assert!(town.page("web-7").contains(newest.as_str()));
    daemon.stop();
}

#[test]
fn a_close_during_the_work_removes_what_is_there_so_far() {
    let mut town = Town::new();
    let daemon = town.start();
    town.start_webhook();
    let slow = crate::town::app().replace("mkdir -p ${app}", "sleep 50; mkdir -p ${app}");
    let sha = town.commit("topic", &[("preview-config.nix", &slow)]);
    town.pull(7, "topic", &sha);
    town.deliver(7, "opened");
    town.settled(7, &sha, PreviewState::SettingUp);
    // Until the app answers, people see how far it is, and programs that it is not there.
    wait_until("the page says how far it is", || {
        let (_, page) = town.browse("web-7", "/", "text/html");
        page.contains("setting up")
    });
    assert_eq!(town.browse("web-7", "/", "application/json").0, 503);
    town.close(7);
    town.gone(7);
    daemon.stop();
}

#[test]
fn events_of_the_same_second_are_ordered_by_githubs_state() {
    let mut town = Town::new();
    let daemon = town.start();
    town.start_webhook();
    let sha = town.open(7, "topic").preview.wanted_sha;
    // Closed and reopened; what happened last arrives first.
    town.deliver(7, "reopened");
    town.deliver(7, "closed");
    town.finished(&town.last_delivery());
    town.settled(7, &sha, PreviewState::Live);
    assert!(town.page("web-7").contains(sha.as_str()));

    // The other way round: reopened and closed. Nothing comes back.
    town.close(7);
    town.gone(7);
    town.deliver(7, "reopened");
    town.finished(&town.last_delivery());
    town.gone(7);

    // Two pushes, of which the first arrives last.
    let first = town.commit("topic", &[("README", "first")]);
    town.pull(7, "topic", &first);
    town.deliver(7, "reopened");
    let newest = town.push(7, "topic", &[("README", "second")]);
    town.change(7, |pull| pull.head_sha = first.clone());
    let late = town
        .github
        .with(|world| world.payload(&town.repo, 7, "synchronize", "alice"));
    town.change(7, |pull| pull.head_sha = newest.clone());
    let late = late.expect("there").to_string();
    let sent = crate::github::payload::Sent::signed("late-push", "pull_request", late);
    assert_eq!(town.send(&sent), 202);
    town.finished("late-push");
    let view = town.settled(7, &newest, PreviewState::Live);
    assert_eq!(view.preview.live_sha, Some(newest));
    daemon.stop();
}

#[test]
fn a_reboot_brings_back_the_page_with_its_data() {
    let mut town = Town::new();
    let daemon = town.start();
    town.start_webhook();
    let sha = town.open(7, "topic").preview.live_sha.expect("live");
    let guest = town.client().guest("web-7");
    daemon.stop();
    town.reboot();
    let daemon = town.start();
    wait_until("the page is back", || {
        town.browse("web-7", "/", "text/html")
            .1
            .contains("prepared 2 times")
    });
    let view = town.preview(7).expect("there");
    assert_eq!(view.preview.state, PreviewState::Live);
    assert_eq!(view.preview.live_sha, Some(sha));
    assert_eq!(
        town.client().guest("web-7").guest_address,
        guest.guest_address
    );
    daemon.stop();
}

#[test]
fn restarts_of_the_daemon_do_not_disturb_the_app() {
    let mut town = Town::new();
    let mut daemon = town.start();
    town.start_webhook();
    town.open(7, "topic");
    for turn in 0..12 {
        if turn % 2 == 0 {
            daemon.stop();
        } else {
            daemon.kill();
        }
        daemon = town.start();
        let page = town.page("web-7");
        assert!(page.contains("prepared 1 times"), "{turn}: {page}");
    }
    let log = town
        .client()
        .call("GET", "/v1/previews/web-7/logs?lines=100", "")
        .body;
    assert!(!log.contains("Starting again"), "{log}");
    daemon.stop();
}
