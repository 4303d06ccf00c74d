//! Deliveries through both programs: durability, duplicates, explanations, replays.

use std::collections::BTreeSet;
use std::sync::Arc;

use innkeeper_model::preview::api::DeliveryState;
use innkeeper_store::DeliveryOutcome;
use serde_json::json;

use crate::github::load;
use crate::github::payload::{RawDelivery, sign};
use crate::host::{IntakeHost, ids};

const RECORDED: &str =
    include_str!("../../../innkeeper-github/tests/payloads/pull_request.opened.json");

#[test]
fn a_delivery_is_on_disk_before_it_is_accepted() {
    let host = IntakeHost::new();
    let daemon = host.sandbox.start();
    let webhook = host.webhook();
    let opened = RawDelivery::signed("d-1", "pull_request", RECORDED);
    assert_eq!(host.deliver(&webhook, &opened), 202);
    daemon.kill();
    assert_eq!(ids(&host.on_disk()), BTreeSet::from(["d-1"]));

    let _daemon = host.sandbox.start();
    let shown = host.show("d-1");
    assert_eq!(shown.delivery.state, DeliveryState::Pending);
    assert_eq!(
        shown.event.pull_request().to_string(),
        "Codertocat/Hello-World#2"
    );
    // The name was allocated together with the delivery.
    let preview = shown.preview.expect("recorded").slug;
    assert_eq!(preview.as_str(), "hello-world-2");
    assert_eq!(shown.delivery.slug, Some(preview));
}

#[test]
fn a_duplicate_delivery_is_recorded_once() {
    let host = IntakeHost::new();
    let daemon = host.sandbox.start();
    let webhook = host.webhook();
    let opened = RawDelivery::signed("d-1", "pull_request", RECORDED);
    assert_eq!(host.deliver(&webhook, &opened), 202);
    assert_eq!(host.deliver(&webhook, &opened), 202);
    let daemon = {
        daemon.kill();
        host.sandbox.start()
    };
    assert_eq!(host.deliver(&webhook, &opened), 202, "also after a restart");
    daemon.stop();
    assert_eq!(ids(&host.on_disk()), BTreeSet::from(["d-1"]));
}

#[test]
fn a_delivery_with_an_invalid_signature_is_not_recorded() {
    let host = IntakeHost::new();
    let daemon = host.sandbox.start();
    let webhook = host.webhook();
    let opened = RawDelivery::signed("d-1", "pull_request", RECORDED);
    let forged = RawDelivery {
        signature: Some(sign("guessed", &opened.body)),
        ..opened.clone()
    };
    let unsigned = RawDelivery {
        signature: None,
        ..opened
    };
    assert_eq!(host.deliver(&webhook, &forged), 401);
    assert_eq!(host.deliver(&webhook, &unsigned), 401);
    assert!(host.list(&[]).is_empty());
    daemon.kill();
    assert!(host.on_disk().is_empty());
}

#[test]
fn accepted_deliveries_survive_kills_and_stops_of_the_daemon() {
    let host = IntakeHost::new();
    let webhook = host.webhook();
    let all: Vec<_> = (0..200_u64)
        .map(|n| RawDelivery::pull_request(&format!("d-{n}"), "opened", 1 + n % 20, n))
        .collect();
    let all = Arc::new(all);
    let results = host.runtime.block_on(async {
        // The first deliveries wait for the first daemon.
        let storm = load::storm(webhook.address, &all, 8);
        let mut daemon = host.sandbox.spawn(&[]);
        for kill in 1..4 {
            storm.wait_for(all.len() * kill / 4).await;
            match kill {
                2 => daemon.stop(),
                _ => daemon.kill(),
            }
            daemon = host.sandbox.spawn(&[]);
        }
        let (results, _) = storm.finish().await;
        daemon.kill();
        results
    });
    let accepted: BTreeSet<_> = results
        .iter()
        .filter(|result| result.status() == 202)
        .map(|result| all[result.index].id.as_str())
        .collect();
    let recorded = host.on_disk();
    // A daemon that is killed between its fsync and its answer records deliveries that are not accepted. GitHub shows
    // those as failed, so they may exist.
    assert!(accepted.is_subset(&ids(&recorded)), "a delivery was lost");
    assert_eq!(
        accepted.len(),
        all.len(),
        "the webhook waits for the daemon"
    );
}

#[test]
fn superseded_and_ignored_deliveries_are_explained() {
    let host = IntakeHost::new();
    let daemon = host.sandbox.start();
    let webhook = host.webhook();
    for (id, action) in [
        ("a", "opened"),
        ("b", "synchronize"),
        ("c", "closed"),
        ("late", "synchronize"),
    ] {
        let sent = RawDelivery::pull_request(id, action, 7, 1);
        assert_eq!(host.deliver(&webhook, &sent), 202, "{id}");
    }
    let other = RawDelivery::pull_request("x", "opened", 8, 1);
    assert_eq!(host.deliver(&webhook, &other), 202);

    let list = host.list(&["--pull-request", "Octo/Web#7"]);
    let seen: Vec<_> = list.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(
        seen,
        ["late", "c", "b", "a"],
        "the newest first, regardless of case"
    );
    assert_eq!(host.list(&["--limit", "1"])[0].id, "x");
    let yields_to = |id| host.show(id).delivery.yields_to;
    assert_eq!(yields_to("a").as_deref(), Some("b"));
    assert_eq!(yields_to("b").as_deref(), Some("c"));
    assert_eq!(yields_to("c"), None);
    let late = host.show("late").delivery;
    assert_eq!(late.state, DeliveryState::Ignored);
    assert_eq!(late.yields_to.as_deref(), Some("c"));
    let output = host.innkeeper(&["deliveries", "show", "late"]);
    assert!(
        output.contains("delivery 'c' (closed) had already closed"),
        "{output}"
    );

    let unknown = host
        .sandbox
        .program("innkeeper", &["deliveries", "show", "nope"], b"");
    assert_eq!(unknown.status.code(), Some(3));
    daemon.stop();
}

/// Records the outcome of a pending delivery, in place of the reconciler. The daemon must not run.
fn finish(host: &IntakeHost, id: &str, outcome: DeliveryOutcome) {
    let store = host.store();
    host.runtime.block_on(async {
        assert!(store.finish_delivery(id, outcome).await.expect("ends"));
        store.close().await.expect("closes");
    });
}

fn failed() -> DeliveryOutcome {
    let failure = innkeeper_model::Failure::new(innkeeper_model::Code::BuildFailed, "no");
    DeliveryOutcome::Failed(failure)
}

#[test]
fn a_redelivery_runs_a_failed_delivery_again() {
    let host = IntakeHost::new();
    let webhook = host.webhook();
    let opened = RawDelivery::signed("d-1", "pull_request", RECORDED);
    let answer = || host.response(&webhook, &opened).body;
    let accepted = json!({ "status": "accepted", "slug": "hello-world-2" });

    let daemon = host.sandbox.start();
    assert_eq!([answer(), answer()], [accepted.clone(), accepted.clone()]);
    daemon.stop();
    finish(&host, "d-1", failed());

    let daemon = host.sandbox.start();
    assert_eq!(host.show("d-1").delivery.state, DeliveryState::Failed);
    assert_eq!(answer(), accepted);
    assert_eq!(host.show("d-1").delivery.state, DeliveryState::Pending);
    daemon.stop();
    finish(&host, "d-1", DeliveryOutcome::Done);

    let daemon = host.sandbox.start();
    let duplicate = host.response(&webhook, &opened);
    assert_eq!(duplicate.status, 202);
    assert_eq!(
        duplicate.body,
        json!({ "status": "duplicate", "slug": "hello-world-2" })
    );
    assert_eq!(host.show("d-1").delivery.state, DeliveryState::Done);
    daemon.stop();
    assert_eq!(ids(&host.on_disk()), BTreeSet::from(["d-1"]));
}

#[test]
fn a_replay_processes_a_delivery_again() {
    let host = IntakeHost::new();
    let daemon = host.sandbox.start();
    let webhook = host.webhook();
    let opened = RawDelivery::pull_request("a", "opened", 7, 1);
    assert_eq!(host.deliver(&webhook, &opened), 202);
    daemon.stop();
    finish(&host, "a", failed());

    let _daemon = host.sandbox.start();
    assert_eq!(host.show("a").delivery.state, DeliveryState::Failed);
    let output = host.innkeeper(&["deliveries", "replay", "a"]);
    assert!(output.contains("will be processed again"), "{output}");
    let shown = host.show("a").delivery;
    assert_eq!((shown.state, shown.attempts), (DeliveryState::Pending, 0));
    assert_eq!(shown.failure, None);
    let unknown = host
        .sandbox
        .program("innkeeper", &["deliveries", "replay", "nope"], b"");
    assert_eq!(unknown.status.code(), Some(3));
}
