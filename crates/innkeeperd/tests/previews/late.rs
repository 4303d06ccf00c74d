//! Deliveries that never arrived: GitHub is asked for them, and what they say is held against what is.

use innkeeper_model::preview::PreviewState;
use innkeeper_model::preview::api::DeliveryState;
use jiff::SignedDuration;

use crate::support::wait_until;
use crate::town::Town;

/// Has GitHub deliver something that does not arrive, half an hour ago. Returns the delivery's id.
fn lose(town: &Town, number: u64, action: &str) -> String {
    let deliver = town.github.deliver(&town.repo, number, action, "alice");
    let attempt = town.runtime.block_on(deliver).expect("a webhook");
    assert_eq!(attempt.status_code, 0, "it arrived");
    town.github.with(|world| {
        let attempt = world.attempts.last_mut().expect("there");
        attempt.delivered_at -= SignedDuration::from_mins(30);
        let mut payload: serde_json::Value = serde_json::from_str(&attempt.payload).expect("JSON");
        payload["pull_request"]["updated_at"] = serde_json::json!(attempt.delivered_at);
        attempt.payload = payload.to_string();
    });
    attempt.guid
}

/// How often GitHub has tried a delivery.
fn attempts(town: &Town, guid: &str) -> usize {
    town.github.with(|world| {
        let attempts = world.attempts.iter();
        attempts.filter(|attempt| attempt.guid == guid).count()
    })
}

#[test]
fn a_pull_request_that_was_opened_while_the_webhook_was_down_gets_its_preview() {
    let mut town = Town::watchful("");
    town.announce_webhook();
    let sha = town.commit_app("topic");
    // GitHub tells which webhooks are ours by a repository that has previews.
    town.pull(6, "topic", &sha);
    town.pull(7, "topic", &sha);
    let lost = lose(&town, 7, "opened");
    let daemon = town.start();
    town.start_webhook();
    town.deliver(6, "opened");
    town.settled(6, &sha, PreviewState::Live);
    town.settled(7, &sha, PreviewState::Live);
    town.finished(&lost);
    assert_eq!(attempts(&town, &lost), 2);
    assert!(town.sandbox.log().contains(&lost), "nobody is told of it");
    daemon.stop();
}

#[test]
fn what_arrives_late_does_not_undo_what_is_newer() {
    let mut town = Town::watchful("");
    town.announce_webhook();
    let old = town.commit_app("topic");
    town.pull(7, "topic", &old);
    let lost_open = lose(&town, 7, "opened");
    town.change(7, |pull| pull.open = false);
    let lost_close = lose(&town, 7, "closed");
    town.change(7, |pull| pull.open = true);
    let newest = town.commit("topic", &[("README", "two")]);
    town.change(7, |pull| pull.head_sha = newest.clone());
    let daemon = town.start();
    town.start_webhook();
    town.deliver(7, "reopened");
    town.settled(7, &newest, PreviewState::Live);
    for lost in [lost_open, lost_close] {
        wait_until("it arrived", || town.delivery(&lost).is_some());
        town.finished(&lost);
        let view = town.delivery(&lost).expect("kept");
        assert!(
            matches!(
                view.state,
                DeliveryState::Ignored | DeliveryState::Superseded
            ),
            "{view:?}"
        );
    }
    let view = town.settled(7, &newest, PreviewState::Live);
    assert_eq!(view.preview.live_sha, Some(newest.clone()));
    assert!(town.page("web-7").contains("prepared 1 times"));
    daemon.stop();
}

#[test]
fn nobody_is_asked_about_webhooks_that_we_may_not_see() {
    let mut town = Town::watchful("");
    let daemon = town.start();
    town.start_webhook();
    town.github.with(|world| {
        use innkeeper_github::fake::FailureKind;
        world.fail("GET", "/hooks", 1_000, FailureKind::Status(404));
    });
    town.open(7, "topic");
    let count = |path: &str| town.github.with(|world| world.count("GET", path));
    let rounds = || count("/repos/octo/web/pulls");
    wait_until("some rounds have passed", || rounds() >= 4);
    assert_eq!(count("/repos/octo/web/hooks"), 1);
    daemon.stop();
}

#[test]
fn what_fails_again_is_asked_for_once_and_again_after_a_restart() {
    let town = Town::watchful("");
    town.announce_webhook();
    let sha = town.commit("topic", &[("README", "no preview")]);
    town.pull(7, "topic", &sha);
    let lost = lose(&town, 7, "opened");
    let daemon = town.start();
    // A preview by which the repository is known; the webhook stays away.
    let create = r#"{"repo":"octo/web","branch":"topic"}"#;
    let client = town.client();
    assert_eq!(client.call("POST", "/v1/previews", create).status, 202);
    let path = "/repos/octo/web/hooks/1/deliveries";
    let looks = || town.github.with(|world| world.count("GET", path));
    wait_until("GitHub was asked", || looks() >= 4);
    assert_eq!(attempts(&town, &lost), 2);
    daemon.stop();
    let before = looks();
    let daemon = town.start();
    wait_until("GitHub was asked", || looks() >= before + 4);
    assert_eq!(attempts(&town, &lost), 3);
    daemon.stop();
}
