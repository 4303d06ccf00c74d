//! Lost deliveries: the daemon requests their redelivery from GitHub, and compares them with the current state.

use innkeeper_model::preview::PreviewState;
use innkeeper_model::preview::api::DeliveryState;
use jiff::SignedDuration;

use crate::host::PreviewHost;
use crate::support::wait_until;

/// Creates a delivery that did not arrive, half an hour ago. Returns its id.
fn lose(host: &PreviewHost, number: u64, action: &str) -> String {
    let deliver = host.github.deliver(&host.repo, number, action, "alice");
    let attempt = host.runtime.block_on(deliver).expect("a webhook");
    assert_eq!(attempt.status_code, 0, "it arrived");
    host.github.with(|world| {
        let attempt = world.attempts.last_mut().expect("there");
        attempt.delivered_at -= SignedDuration::from_mins(30);
        let mut payload: serde_json::Value = serde_json::from_str(&attempt.payload).expect("JSON");
        payload["pull_request"]["updated_at"] = serde_json::json!(attempt.delivered_at);
        attempt.payload = payload.to_string();
    });
    attempt.guid
}

/// Returns the number of GitHub's attempts of a delivery.
fn attempts(host: &PreviewHost, guid: &str) -> usize {
    host.github.with(|world| {
        let attempts = world.attempts.iter();
        attempts.filter(|attempt| attempt.guid == guid).count()
    })
}

#[test]
fn a_lost_opened_delivery_is_redelivered() {
    let mut host = PreviewHost::resyncing("");
    host.register_webhook();
    let sha = host.commit_app("topic");
    // The daemon finds the webhook through a repository that has previews.
    host.pull(6, "topic", &sha);
    host.pull(7, "topic", &sha);
    let lost = lose(&host, 7, "opened");
    let daemon = host.start();
    host.start_webhook();
    host.deliver(6, "opened");
    host.wait_for_state(6, &sha, PreviewState::Live);
    host.wait_for_state(7, &sha, PreviewState::Live);
    host.wait_for_delivery(&lost);
    assert_eq!(attempts(&host, &lost), 2);
    assert!(
        host.sandbox.log().contains(&lost),
        "the redelivery is not logged"
    );
    daemon.stop();
}

#[test]
fn late_deliveries_do_not_revert_newer_ones() {
    let mut host = PreviewHost::resyncing("");
    host.register_webhook();
    let old = host.commit_app("topic");
    host.pull(7, "topic", &old);
    let lost_open = lose(&host, 7, "opened");
    host.change(7, |pull| pull.open = false);
    let lost_close = lose(&host, 7, "closed");
    host.change(7, |pull| pull.open = true);
    let newest = host.commit("topic", &[("README", "two")]);
    host.change(7, |pull| pull.head_sha = newest.clone());
    let daemon = host.start();
    host.start_webhook();
    host.deliver(7, "reopened");
    host.wait_for_state(7, &newest, PreviewState::Live);
    for lost in [lost_open, lost_close] {
        wait_until("it arrived", || host.delivery(&lost).is_some());
        host.wait_for_delivery(&lost);
        let view = host.delivery(&lost).expect("kept");
        assert!(
            matches!(
                view.state,
                DeliveryState::Ignored | DeliveryState::Superseded
            ),
            "{view:?}"
        );
    }
    let view = host.wait_for_state(7, &newest, PreviewState::Live);
    assert_eq!(view.preview.live_sha, Some(newest.clone()));
    assert!(host.page("web-7").contains("prepared 1 times"));
    daemon.stop();
}

#[test]
fn inaccessible_webhooks_are_queried_once() {
    let mut host = PreviewHost::resyncing("");
    let daemon = host.start();
    host.start_webhook();
    host.github.with(|world| {
        use innkeeper_github::fake::FailureKind;
        world.fail("GET", "/hooks", 1_000, FailureKind::Status(404));
    });
    host.open(7, "topic");
    let count = |path: &str| host.github.with(|world| world.count("GET", path));
    let resyncs = || count("/repos/octo/web/pulls");
    wait_until("some resyncs have run", || resyncs() >= 4);
    assert_eq!(count("/repos/octo/web/hooks"), 1);
    daemon.stop();
}

#[test]
fn a_failing_redelivery_is_requested_once_per_daemon_start() {
    let host = PreviewHost::resyncing("");
    host.register_webhook();
    let sha = host.commit("topic", &[("README", "no preview")]);
    host.pull(7, "topic", &sha);
    let lost = lose(&host, 7, "opened");
    let daemon = host.start();
    // The preview makes the repository known. The webhook stays down.
    let create = r#"{"repo":"octo/web","branch":"topic"}"#;
    let client = host.client();
    assert_eq!(client.call("POST", "/v1/previews", create).status, 202);
    let path = "/repos/octo/web/hooks/1/deliveries";
    let queries = || host.github.with(|world| world.count("GET", path));
    wait_until("deliveries were queried", || queries() >= 4);
    assert_eq!(attempts(&host, &lost), 2);
    daemon.stop();
    let before = queries();
    let daemon = host.start();
    wait_until("deliveries were queried", || queries() >= before + 4);
    assert_eq!(attempts(&host, &lost), 3);
    daemon.stop();
}
