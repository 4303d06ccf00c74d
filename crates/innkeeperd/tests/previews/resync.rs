//! The periodic resync: finds closes and pushes whose delivery was lost, and evicts idle previews.

use std::time::Duration;

use innkeeper_github::fake::FailureKind;
use innkeeper_model::Code;
use innkeeper_model::preview::PreviewState;
use jiff::{SignedDuration, Timestamp};

use crate::host::{PreviewHost, other_app};
use crate::support::wait_until;

/// Returns the number of queries for the open pull requests.
fn lists(host: &PreviewHost) -> usize {
    host.github
        .with(|world| world.count("GET", "/repos/octo/web/pulls"))
}

#[test]
fn a_lost_close_removes_the_preview() {
    let mut host = PreviewHost::resyncing("");
    let daemon = host.start();
    host.start_webhook();
    host.open(7, "topic");
    host.open(8, "other");
    host.change(7, |pull| pull.open = false);
    host.wait_until_gone(7);
    wait_until("the comment is updated", || {
        host.comments(7)[0].contains("removed")
    });
    assert!(host.page("web-8").contains("<h1>other</h1>"));
    daemon.stop();
}

#[test]
fn a_lost_push_is_deployed() {
    let mut host = PreviewHost::resyncing("");
    let daemon = host.start();
    host.start_webhook();
    host.open(7, "topic");
    let pushed = host.commit("topic", &[("README", "two")]);
    host.change(7, |pull| pull.head_sha = pushed.clone());
    host.wait_for_state(7, &pushed, PreviewState::Live);
    assert!(host.page("web-7").contains(pushed.as_str()));
    daemon.stop();
}

#[test]
fn a_failed_list_of_pull_requests_removes_no_preview() {
    let mut host = PreviewHost::resyncing("");
    let daemon = host.start();
    host.start_webhook();
    host.open(7, "topic");
    for status in [404, 403, 502] {
        host.github.with(|world| {
            world.failures.clear();
            world.fail("GET", "/pulls?", 1_000, FailureKind::Status(status));
        });
        let before = lists(&host);
        // One failed query first, so that no older list is still being processed.
        wait_until("a query failed", || lists(&host) > before);
        host.change(7, |pull| pull.open = false);
        let before = lists(&host);
        wait_until("more queries failed", || lists(&host) >= before + 3);
        let view = host.preview(7).expect("it was removed");
        assert_eq!(view.preview.state, PreviewState::Live);
        host.change(7, |pull| pull.open = true);
    }
    host.change(7, |pull| pull.open = false);
    host.github.with(|world| world.failures.clear());
    host.wait_until_gone(7);
    daemon.stop();
}

#[test]
fn the_least_recently_used_preview_is_evicted_after_evaluation() {
    let mut host = PreviewHost::resyncing("limit = 1");
    let daemon = host.start();
    host.start_webhook();
    host.open(7, "topic");
    // A commit that cannot be evaluated evicts nothing.
    let bad = host.commit("other", &[("preview-config.nix", "{ this is not nix")]);
    let action = host.pull(8, "other", &bad);
    host.deliver(8, action);
    host.wait_for_state(8, &bad, PreviewState::Failed);
    assert!(host.page("web-7").contains("<h1>topic</h1>"));
    let good = host.push(8, "other", &[("preview-config.nix", &crate::host::app())]);
    host.wait_for_state(8, &good, PreviewState::Live);
    host.wait_until_gone(7);
    wait_until("the comment is updated", || {
        host.comments(7)[0].contains("removed")
    });
    assert!(host.page("web-8").contains("<h1>other</h1>"));
    // It stays evicted until a push, although its pull request is open.
    let before = lists(&host);
    wait_until("some resyncs have run", || lists(&host) >= before + 3);
    assert!(host.preview(7).is_none());
    // The preview of a newer pull request is not evicted.
    let pushed = host.push(7, "topic", &[("README", "two")]);
    waits_for_room(&host, 7);
    assert!(host.page("web-8").contains("<h1>other</h1>"));
    host.close(8);
    host.wait_until_gone(8);
    host.wait_for_state(7, &pushed, PreviewState::Live);
    daemon.stop();
}

#[test]
fn a_preview_visited_during_an_evaluation_is_not_evicted() {
    let mut host = PreviewHost::resyncing("limit = 1");
    let daemon = host.start();
    host.start_webhook();
    host.open(7, "topic");
    let sha = host.commit("other", &[("preview-config.nix", &other_app("other"))]);
    let action = host.pull(8, "other", &sha);
    host.github
        .with(|world| world.fail("GET", "/git/blobs/", 1, FailureKind::Slow(3_000)));
    host.deliver(8, action);
    host.wait_for_state(8, &sha, PreviewState::Evaluating);
    assert!(host.page("web-7").contains("<h1>topic</h1>"));
    waits_for_room(&host, 8);
    assert!(host.page("web-7").contains("<h1>topic</h1>"));
    // A push after that visit is the more recent use.
    let pushed = host.push(8, "other", &[("README", "two")]);
    host.wait_for_state(8, &pushed, PreviewState::Live);
    host.wait_until_gone(7);
    daemon.stop();
}

/// Waits until a preview is evaluated and waits for room.
fn waits_for_room(host: &PreviewHost, number: u64) {
    wait_until("it waits for room", || {
        let fault = host.preview(number).and_then(|view| view.preview.fault);
        fault.is_some_and(|fault| fault.code == Code::TooManyPreviews)
    });
}

#[test]
fn unused_previews_expire_and_are_removed_later() {
    let past_ttl = Duration::from_secs(61 * 60);
    let mut host = PreviewHost::expiring();
    let daemon = host.start();
    host.start_webhook();
    host.open(7, "topic");
    host.open(8, "other");
    host.exec("web-7", &["sh", "-c", "echo kept > /root/kept"]);
    daemon.stop();
    host.advance_running_time(past_ttl);
    host.visit(8);
    let daemon = host.start();
    let expired = |number| {
        wait_until("the preview expired and its guest is stopped", || {
            let view = host.preview(number).expect("it stays");
            let path = format!("/v1/guests/{}", PreviewHost::slug(number));
            let guest = host.client().call("GET", &path, "");
            view.preview.state == PreviewState::Expired
                && guest.status == 200
                && guest.body.contains("\"state\":\"stopped\"")
        });
    };
    expired(7);
    wait_until("the comment is updated", || {
        host.comments(7)[0].contains("**Expired.**")
    });
    let (status, page) = host.browse("web-7", "/", "text/html");
    assert_eq!(status, 503, "{page}");
    assert!(page.contains("expired"), "{page}");
    assert_eq!(
        host.preview(8).expect("it stays").preview.state,
        PreviewState::Live
    );
    // That visit restarts it with its files.
    let topic = host.preview(7).expect("it stays").preview.wanted_sha;
    host.wait_for_state(7, &topic, PreviewState::Live);
    assert_eq!(host.exec("web-7", &["cat", "/root/kept"]), "kept\n");
    daemon.stop();

    host.advance_running_time(past_ttl);
    let daemon = host.start();
    expired(7);
    expired(8);
    let pushed = host.push(7, "topic", &[("README", "two")]);
    host.wait_for_state(7, &pushed, PreviewState::Live);
    assert_eq!(host.exec("web-7", &["cat", "/root/kept"]), "kept\n");
    wait_until("the guest starts after the stop", || {
        let started = host.sandbox.program("preview", &["start", "web-8"], b"");
        started.status.success()
    });
    let live = host.preview(8).expect("it stays").preview.wanted_sha;
    host.wait_for_state(8, &live, PreviewState::Live);
    daemon.stop();

    host.advance_running_time(past_ttl);
    host.visit(8);
    let daemon = host.start();
    expired(7);
    daemon.stop();
    host.advance_running_time(past_ttl);
    host.visit(8);
    let daemon = host.start();
    host.wait_until_gone(7);
    wait_until("the comment is updated", || {
        host.comments(7)[0].contains("removed")
    });
    assert!(host.preview(8).is_some());
    daemon.stop();
}

#[test]
fn clock_jumps_and_downtime_do_not_expire_previews() {
    let mut host = PreviewHost::expiring();
    let daemon = host.start();
    host.start_webhook();
    host.open(7, "topic");
    daemon.stop();
    // The state after a clock jump by two days, or after two days of downtime.
    host.mark_active(7, Timestamp::now() - SignedDuration::from_hours(48));
    let before = lists(&host);
    let daemon = host.start();
    wait_until("some resyncs have run", || lists(&host) >= before + 3);
    let view = host.preview(7).expect("it was removed");
    assert_eq!(view.preview.state, PreviewState::Live);
    daemon.stop();
}

#[test]
fn the_grace_period_after_a_start_prevents_expiry() {
    let mut host = PreviewHost::resyncing("ttl_hours = 1");
    let daemon = host.start();
    host.start_webhook();
    host.open(7, "topic");
    daemon.stop();
    host.advance_running_time(Duration::from_secs(61 * 60));
    let before = lists(&host);
    let daemon = host.start();
    wait_until("some resyncs have run", || lists(&host) >= before + 3);
    let view = host.preview(7).expect("it was removed");
    assert_eq!(view.preview.state, PreviewState::Live);
    daemon.stop();
}
