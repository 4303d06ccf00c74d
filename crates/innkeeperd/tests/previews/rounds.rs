//! What nobody tells is found out: pull requests that were closed or pushed to without a delivery, previews that nobody
//! uses or that are too many.

use std::time::Duration;

use innkeeper_github::fake::FailureKind;
use innkeeper_model::Code;
use innkeeper_model::preview::PreviewState;
use jiff::{SignedDuration, Timestamp};

use crate::support::wait_until;
use crate::town::Town;

/// How often GitHub was asked for the open pull requests.
fn lists(town: &Town) -> usize {
    town.github
        .with(|world| world.count("GET", "/repos/octo/web/pulls"))
}

#[test]
fn a_close_that_was_not_delivered_leaves_no_preview_behind() {
    let mut town = Town::watchful("");
    let daemon = town.start();
    town.start_webhook();
    town.open(7, "topic");
    town.open(8, "other");
    town.change(7, |pull| pull.open = false);
    town.gone(7);
    wait_until("the pull request says so", || {
        town.comments(7)[0].contains("removed")
    });
    assert!(town.page("web-8").contains("<h1>other</h1>"));
    daemon.stop();
}

#[test]
fn a_push_that_was_not_delivered_is_live_soon() {
    let mut town = Town::watchful("");
    let daemon = town.start();
    town.start_webhook();
    town.open(7, "topic");
    let pushed = town.commit("topic", &[("README", "two")]);
    town.change(7, |pull| pull.head_sha = pushed.clone());
    town.settled(7, &pushed, PreviewState::Live);
    assert!(town.page("web-7").contains(pushed.as_str()));
    daemon.stop();
}

#[test]
fn a_list_that_cannot_be_had_says_nothing_about_anybody() {
    let mut town = Town::watchful("");
    let daemon = town.start();
    town.start_webhook();
    town.open(7, "topic");
    for status in [404, 403, 502] {
        town.github.with(|world| {
            world.failures.clear();
            world.fail("GET", "/pulls?", 1_000, FailureKind::Status(status));
        });
        let before = lists(&town);
        // Once it is refused for certain, so that no list from before is being read.
        wait_until("GitHub refused", || lists(&town) > before);
        town.change(7, |pull| pull.open = false);
        let before = lists(&town);
        wait_until("GitHub refused again", || lists(&town) >= before + 3);
        let view = town.preview(7).expect("it was removed");
        assert_eq!(view.preview.state, PreviewState::Live);
        town.change(7, |pull| pull.open = true);
    }
    town.change(7, |pull| pull.open = false);
    town.github.with(|world| world.failures.clear());
    town.gone(7);
    daemon.stop();
}

#[test]
fn the_least_recently_used_makes_room_once_the_new_one_is_evaluated() {
    let mut town = Town::watchful("limit = 1");
    let daemon = town.start();
    town.start_webhook();
    town.open(7, "topic");
    // One that cannot be evaluated takes nothing away.
    let bad = town.commit("other", &[("preview-config.nix", "{ this is not nix")]);
    let action = town.pull(8, "other", &bad);
    town.deliver(8, action);
    town.settled(8, &bad, PreviewState::Failed);
    assert!(town.page("web-7").contains("<h1>topic</h1>"));
    let good = town.push(8, "other", &[("preview-config.nix", &crate::town::app())]);
    town.settled(8, &good, PreviewState::Live);
    town.gone(7);
    wait_until("the pull request says so", || {
        town.comments(7)[0].contains("removed")
    });
    assert!(town.page("web-8").contains("<h1>other</h1>"));
    // It stays away until somebody pushes to it, although its pull request is open.
    let before = lists(&town);
    wait_until("GitHub was asked some times", || lists(&town) >= before + 3);
    assert!(town.preview(7).is_none());
    // A newer pull request's preview does not make room.
    let pushed = town.push(7, "topic", &[("README", "two")]);
    waits_for_room(&town, 7);
    assert!(town.page("web-8").contains("<h1>other</h1>"));
    town.close(8);
    town.gone(8);
    town.settled(7, &pushed, PreviewState::Live);
    daemon.stop();
}

#[test]
fn a_preview_that_is_visited_while_another_one_is_evaluated_stays() {
    let mut town = Town::watchful("limit = 1");
    let daemon = town.start();
    town.start_webhook();
    town.open(7, "topic");
    let sha = town.commit_app("other");
    let action = town.pull(8, "other", &sha);
    town.github
        .with(|world| world.fail("GET", "/contents/", 1, FailureKind::Slow(3_000)));
    town.deliver(8, action);
    town.settled(8, &sha, PreviewState::Evaluating);
    assert!(town.page("web-7").contains("<h1>topic</h1>"));
    waits_for_room(&town, 8);
    assert!(town.page("web-7").contains("<h1>topic</h1>"));
    // What was used after that visit is the newer use.
    let pushed = town.push(8, "other", &[("README", "two")]);
    town.settled(8, &pushed, PreviewState::Live);
    town.gone(7);
    daemon.stop();
}

/// Waits until a preview is evaluated and there is no room for it.
fn waits_for_room(town: &Town, number: u64) {
    wait_until("it waits for room", || {
        let fault = town.preview(number).and_then(|view| view.preview.fault);
        fault.is_some_and(|fault| fault.code == Code::TooManyPreviews)
    });
}

#[test]
fn a_preview_that_nobody_used_for_too_long_is_stopped_and_goes_after_the_same_time_again() {
    let too_long = Duration::from_secs(61 * 60);
    let mut town = Town::expiring();
    let daemon = town.start();
    town.start_webhook();
    town.open(7, "topic");
    town.open(8, "other");
    town.inside("web-7", &["sh", "-c", "echo kept > /root/kept"]);
    daemon.stop();
    town.pass(too_long);
    town.visit(8);
    let daemon = town.start();
    let expired = |number| {
        wait_until("the preview expired and its guest is stopped", || {
            let view = town.preview(number).expect("it stays");
            let path = format!("/v1/guests/{}", Town::slug(number));
            let guest = town.client().call("GET", &path, "");
            view.preview.state == PreviewState::Expired
                && guest.status == 200
                && guest.body.contains("\"state\":\"stopped\"")
        });
    };
    expired(7);
    wait_until("the pull request says so", || {
        town.comments(7)[0].contains("**Expired.**")
    });
    let (status, page) = town.browse("web-7", "/", "text/html");
    assert_eq!(status, 503, "{page}");
    assert!(page.contains("expired"), "{page}");
    assert_eq!(
        town.preview(8).expect("it stays").preview.state,
        PreviewState::Live
    );
    // That was a visit, which brings it back with its files.
    let topic = town.preview(7).expect("it stays").preview.wanted_sha;
    town.settled(7, &topic, PreviewState::Live);
    assert_eq!(town.inside("web-7", &["cat", "/root/kept"]), "kept\n");
    daemon.stop();

    town.pass(too_long);
    let daemon = town.start();
    expired(7);
    expired(8);
    let pushed = town.push(7, "topic", &[("README", "two")]);
    town.settled(7, &pushed, PreviewState::Live);
    assert_eq!(town.inside("web-7", &["cat", "/root/kept"]), "kept\n");
    wait_until("the stop has ended, and the guest starts", || {
        let started = town.sandbox.program("preview", &["start", "web-8"], b"");
        started.status.success()
    });
    let live = town.preview(8).expect("it stays").preview.wanted_sha;
    town.settled(8, &live, PreviewState::Live);
    daemon.stop();

    town.pass(too_long);
    town.visit(8);
    let daemon = town.start();
    expired(7);
    daemon.stop();
    town.pass(too_long);
    town.visit(8);
    let daemon = town.start();
    town.gone(7);
    wait_until("the pull request says so", || {
        town.comments(7)[0].contains("removed")
    });
    assert!(town.preview(8).is_some());
    daemon.stop();
}

#[test]
fn a_clock_that_jumps_or_a_host_that_was_off_removes_nothing() {
    let mut town = Town::expiring();
    let daemon = town.start();
    town.start_webhook();
    town.open(7, "topic");
    daemon.stop();
    // As the daemon finds it when its clock is two days ahead, and after two days without it.
    town.mark_active(7, Timestamp::now() - SignedDuration::from_hours(48));
    let before = lists(&town);
    let daemon = town.start();
    wait_until("GitHub was asked some times", || lists(&town) >= before + 3);
    let view = town.preview(7).expect("it was removed");
    assert_eq!(view.preview.state, PreviewState::Live);
    daemon.stop();
}

#[test]
fn nothing_expires_within_the_grace_period_after_a_start() {
    let mut town = Town::watchful("ttl_hours = 1");
    let daemon = town.start();
    town.start_webhook();
    town.open(7, "topic");
    daemon.stop();
    town.pass(Duration::from_secs(61 * 60));
    let before = lists(&town);
    let daemon = town.start();
    wait_until("GitHub was asked some times", || lists(&town) >= before + 3);
    let view = town.preview(7).expect("it was removed");
    assert_eq!(view.preview.state, PreviewState::Live);
    daemon.stop();
}
