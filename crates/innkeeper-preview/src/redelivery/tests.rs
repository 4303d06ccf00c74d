use innkeeper_github::fake::{DeliveryAttempt, FailureKind, HookTarget};
use innkeeper_model::preview::PrAction;

use super::*;
use crate::fixture::{Harness, WEBHOOK, repo, sha};

async fn harness() -> Harness {
    let harness = Harness::with(|config| config.repositories = vec![repo()]).await;
    let hook = HookTarget {
        url: WEBHOOK.to_owned(),
        secret: "secret".to_owned(),
    };
    harness.github.with(|world| world.hook = Some(hook));
    harness
}

/// Has an attempt of GitHub's to deliver an event be recorded there.
fn attempt(harness: &Harness, guid: &str, event: &str, status_code: u16) {
    harness.github.with(|world| {
        let id = world.id();
        world.attempts.push(DeliveryAttempt {
            id,
            guid: guid.to_owned(),
            event: event.to_owned(),
            status_code,
            delivered_at: Timestamp::now(),
            redelivery: false,
            payload: "{}".to_owned(),
        });
    });
}

/// The deliveries whose redelivery was requested, in order.
fn redelivered(harness: &Harness) -> Vec<String> {
    harness.github.with(|world| {
        let attempts = world.attempts.iter().filter(|attempt| attempt.redelivery);
        attempts.map(|attempt| attempt.guid.clone()).collect()
    })
}

async fn request_lost(harness: &mut Harness) {
    let redelivery = &mut harness.parts.resync.redelivery;
    redelivery.request_lost().await.expect("answered");
}

#[tokio::test]
async fn lost_deliveries_are_requested_and_others_are_not() {
    let mut harness = harness().await;
    attempt(&harness, "lost", "pull_request", 502);
    attempt(&harness, "renamed", "repository", 0);
    attempt(&harness, "unrelated", "push", 502);
    attempt(&harness, "accepted", "pull_request", 202);
    // It arrived, and only the answer was late.
    attempt(&harness, "arrived", "pull_request", 0);
    harness.deliver("arrived", PrAction::Opened, sha('a')).await;
    request_lost(&mut harness).await;
    assert_eq!(redelivered(&harness), ["lost", "renamed"]);
}

#[tokio::test]
async fn attempt_is_requested_again_only_after_its_delay() {
    let mut harness = harness().await;
    attempt(&harness, "lost", "pull_request", 502);
    request_lost(&mut harness).await;
    // The redelivery failed as well: the webhook's port is closed.
    request_lost(&mut harness).await;
    request_lost(&mut harness).await;
    assert_eq!(redelivered(&harness), ["lost"]);
}

#[tokio::test]
async fn refused_redelivery_does_not_keep_the_others() {
    let mut harness = harness().await;
    attempt(&harness, "first", "pull_request", 502);
    attempt(&harness, "second", "pull_request", 502);
    harness
        .github
        .with(|world| world.fail("POST", "/attempts", 1, FailureKind::Status(404)));
    request_lost(&mut harness).await;
    assert_eq!(redelivered(&harness), ["second"]);
}

#[tokio::test]
async fn webhooks_of_other_hosts_are_left_alone() {
    let mut harness = harness().await;
    let hook = HookTarget {
        url: "http://127.0.0.1:9/other".to_owned(),
        secret: "secret".to_owned(),
    };
    harness.github.with(|world| world.hook = Some(hook));
    attempt(&harness, "lost", "pull_request", 502);
    request_lost(&mut harness).await;
    assert!(redelivered(&harness).is_empty());
}

#[test]
fn deliveries_are_checked_again_after_the_clock_was_ahead() {
    let now = Timestamp::from_second(1_800_000_000).expect("a time");
    let ahead = now + SignedDuration::from_hours(48) - OVERLAP;
    assert_eq!(valid_since(ahead, now), now - KEPT);
    assert_eq!(valid_since(now - OVERLAP, now), now - OVERLAP);
}

#[test]
fn delay_of_a_redelivery_doubles() {
    let minutes = |attempts| {
        let delivery = FailedDelivery {
            id: 1,
            guid: "g".to_owned(),
            event: EVENTS[0].to_owned(),
            status_code: 0,
            delivered_at: Timestamp::UNIX_EPOCH,
            first_at: Timestamp::UNIX_EPOCH,
            attempts,
        };
        due(&delivery).as_second() / 60
    };
    let delays: Vec<_> = (1..ATTEMPTS).map(minutes).collect();
    assert_eq!(delays, [0, 5, 10, 20, 40, 80, 160, 320, 640]);
}
