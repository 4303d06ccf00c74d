//! What GitHub was told is true.

use std::collections::BTreeSet;
use std::sync::Arc;

use innkeeper_model::preview::api::DeliveryState;

use crate::github::load;
use crate::github::payload::{Sent, sign};
use crate::house::{House, ids};

const RECORDED: &str =
    include_str!("../../../innkeeper-github/tests/payloads/pull_request.opened.json");

#[test]
fn a_recorded_delivery_is_on_disk_when_github_hears_that_it_was_accepted() {
    let house = House::new();
    let daemon = house.sandbox.start();
    let webhook = house.webhook();
    let opened = Sent::signed("d-1", "pull_request", RECORDED);
    assert_eq!(house.deliver(&webhook, &opened), 202);
    daemon.kill();
    assert_eq!(ids(&house.on_disk()), BTreeSet::from(["d-1"]));

    let _daemon = house.sandbox.start();
    let shown = house.show("d-1");
    assert_eq!(shown.delivery.state, DeliveryState::Pending);
    assert_eq!(
        shown.event.pull_request.to_string(),
        "Codertocat/Hello-World#2"
    );
    // The name was given away together with the delivery.
    let preview = shown.preview.expect("recorded").slug;
    assert_eq!(preview.as_str(), "hello-world-2");
    assert_eq!(shown.delivery.slug, Some(preview));
}

#[test]
fn a_delivery_that_comes_twice_is_there_once() {
    let house = House::new();
    let daemon = house.sandbox.start();
    let webhook = house.webhook();
    let opened = Sent::signed("d-1", "pull_request", RECORDED);
    assert_eq!(house.deliver(&webhook, &opened), 202);
    assert_eq!(house.deliver(&webhook, &opened), 202);
    let daemon = {
        daemon.kill();
        house.sandbox.start()
    };
    assert_eq!(
        house.deliver(&webhook, &opened),
        202,
        "also after a restart"
    );
    daemon.stop();
    assert_eq!(ids(&house.on_disk()), BTreeSet::from(["d-1"]));
}

#[test]
fn what_was_not_signed_with_our_secret_leaves_nothing() {
    let house = House::new();
    let daemon = house.sandbox.start();
    let webhook = house.webhook();
    let opened = Sent::signed("d-1", "pull_request", RECORDED);
    let forged = Sent {
        signature: Some(sign("guessed", &opened.body)),
        ..opened.clone()
    };
    let unsigned = Sent {
        signature: None,
        ..opened
    };
    assert_eq!(house.deliver(&webhook, &forged), 401);
    assert_eq!(house.deliver(&webhook, &unsigned), 401);
    assert!(house.list(&[]).is_empty());
    daemon.kill();
    assert!(house.on_disk().is_empty());
}

#[test]
fn deliveries_that_arrive_while_the_daemon_is_killed_or_stopped_are_there_once_if_accepted() {
    let house = House::new();
    let webhook = house.webhook();
    let all: Vec<_> = (0..200_u64)
        .map(|n| Sent::pull_request(&format!("d-{n}"), "opened", 1 + n % 20, n))
        .collect();
    let all = Arc::new(all);
    let shots = house.runtime.block_on(async {
        // The first ones wait for the first daemon.
        let storm = load::storm(webhook.address, &all, 8);
        let mut daemon = house.sandbox.spawn(&[]);
        for kill in 1..4 {
            storm.reaches(all.len() * kill / 4).await;
            match kill {
                2 => daemon.stop(),
                _ => daemon.kill(),
            }
            daemon = house.sandbox.spawn(&[]);
        }
        let (shots, _) = storm.passes().await;
        daemon.kill();
        shots
    });
    let accepted: BTreeSet<_> = shots
        .iter()
        .filter(|shot| shot.status() == 202)
        .map(|shot| all[shot.index].id.as_str())
        .collect();
    let kept = house.on_disk();
    // The daemon may have been killed between its fsync and its answer, and the webhook may have run out of
    // time then: what was not accepted may be there, and nobody relies on it.
    assert!(accepted.is_subset(&ids(&kept)), "one is lost");
    assert_eq!(
        accepted.len(),
        all.len(),
        "the webhook waits for the daemon"
    );
}

#[test]
fn the_reason_why_a_delivery_counts_no_more_is_told() {
    let house = House::new();
    let daemon = house.sandbox.start();
    let webhook = house.webhook();
    for (id, action) in [
        ("a", "opened"),
        ("b", "synchronize"),
        ("c", "closed"),
        ("late", "synchronize"),
    ] {
        let sent = Sent::pull_request(id, action, 7, 1);
        assert_eq!(house.deliver(&webhook, &sent), 202, "{id}");
    }
    let other = Sent::pull_request("x", "opened", 8, 1);
    assert_eq!(house.deliver(&webhook, &other), 202);

    let list = house.list(&["--pull-request", "Octo/Web#7"]);
    let seen: Vec<_> = list.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(
        seen,
        ["late", "c", "b", "a"],
        "the newest first, case does not matter"
    );
    assert_eq!(house.list(&["--limit", "1"])[0].id, "x");
    let yields_to = |id| house.show(id).delivery.yields_to;
    assert_eq!(yields_to("a").as_deref(), Some("b"));
    assert_eq!(yields_to("b").as_deref(), Some("c"));
    assert_eq!(yields_to("c"), None);
    let late = house.show("late").delivery;
    assert_eq!(late.state, DeliveryState::Ignored);
    assert_eq!(late.yields_to.as_deref(), Some("c"));
    let words = house.innkeeper(&["deliveries", "show", "late"]);
    assert!(
        words.contains("delivery 'c' (closed) had already closed"),
        "{words}"
    );

    let unknown = house
        .sandbox
        .program("innkeeper", &["deliveries", "show", "nope"], b"");
    assert_eq!(unknown.status.code(), Some(3));
    daemon.stop();
}

#[test]
fn a_replay_has_a_delivery_acted_on_again() {
    let house = House::new();
    let daemon = house.sandbox.start();
    let webhook = house.webhook();
    let opened = Sent::pull_request("a", "opened", 7, 1);
    assert_eq!(house.deliver(&webhook, &opened), 202);
    daemon.stop();
    let failure = innkeeper_model::Failure::new(innkeeper_model::Code::BuildFailed, "no");
    let store = house.store();
    let failed = innkeeper_store::DeliveryOutcome::Failed(failure);
    house.runtime.block_on(async {
        assert!(store.finish_delivery("a", failed).await.expect("ends"));
        store.close().await.expect("closes");
    });

    let _daemon = house.sandbox.start();
    assert_eq!(house.show("a").delivery.state, DeliveryState::Failed);
    let said = house.innkeeper(&["deliveries", "replay", "a"]);
    assert!(said.contains("will be processed again"), "{said}");
    let shown = house.show("a").delivery;
    assert_eq!((shown.state, shown.attempts), (DeliveryState::Pending, 0));
    assert_eq!(shown.failure, None);
    let unknown = house
        .sandbox
        .program("innkeeper", &["deliveries", "replay", "nope"], b"");
    assert_eq!(unknown.status.code(), Some(3));
}
