//! Thousands of deliveries, good ones and bad ones, while the daemon is killed again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use innkeeper_model::preview::api::DeliveryState;
use innkeeper_model::preview::{CommitSha, PrAction, PullRequest};
use innkeeper_store::{Delivery, DeliveryOutcome, NextDelivery, Store};

use crate::github::load::{self, Shot};
use crate::github::payload::Sent;
use crate::house::{House, ids};
use crate::weather::{Weather, allowed, implied, is_good};

const DELIVERIES: u32 = 5_000;
const PULL_REQUESTS: u32 = 400;
const CONNECTIONS: usize = 32;
const KILLS: usize = 5;

#[test]
fn in_a_storm_every_accepted_delivery_is_there_once_and_no_other() {
    let house = House::new();
    let weather = Weather::new(3, DELIVERIES, PULL_REQUESTS);
    let all = Arc::new(weather.sent.clone());
    let shots = rage(&house, &all);
    let accepted = accepted(&all, &shots);
    assert!(accepted.len() > 4_500, "only {} accepted", accepted.len());

    let kept = house.on_disk();
    let there = ids(&kept);
    let lost: Vec<_> = accepted.difference(&there).take(10).collect();
    assert!(lost.is_empty(), "accepted, and not there: {lost:?} …");
    let invalid: Vec<_> = there.iter().filter(|id| !is_good(id)).take(10).collect();
    assert!(invalid.is_empty(), "not accepted, and there: {invalid:?} …");

    let implied = implied(kept.iter().map(|delivery| &delivery.event));
    let numbers: BTreeSet<_> = implied.keys().map(|one| one.number).collect();
    let certain = weather.certain(&there);
    assert!(certain.present.is_subset(&numbers), "{certain:?}");
    assert!(certain.absent.is_disjoint(&numbers), "{certain:?}");
    assert!(
        certain.present.len() > 20 && certain.absent.len() > 100,
        "{certain:?}"
    );
    names_are_given_away(&house, &kept);
    assert_eq!(act_on_all(&house), implied);
}

/// Sends all, and kills and starts the daemon meanwhile. No daemon runs afterwards.
fn rage(house: &House, all: &Arc<Vec<Sent>>) -> Vec<Shot> {
    let mut daemon = house.sandbox.spawn(&[]);
    let webhook = house.webhook();
    let (shots, took) = house.runtime.block_on(async {
        let storm = load::storm(webhook.address, all, CONNECTIONS);
        for kill in 1..=KILLS {
            storm.reaches(all.len() * kill / (KILLS + 1)).await;
            daemon.kill();
            daemon = house.sandbox.spawn(&[]);
        }
        let passed = storm.passes().await;
        daemon.kill();
        passed
    });
    let (rate, median, last) = load::figures(&shots, took);
    eprintln!(
        "storm of {} with {KILLS} kills in {took:.1?}: {rate:.0} accepted a second, median {median:.1?}, 99th percentile {last:.1?}",
        all.len()
    );
    shots
}

/// The ids that were answered with 202. Checks that each answer is one that its delivery deserves.
fn accepted<'a>(all: &'a [Sent], shots: &[Shot]) -> BTreeSet<&'a str> {
    assert_eq!(shots.len(), all.len());
    for shot in shots {
        let id = &all[shot.index].id;
        assert!(
            allowed(id).contains(&shot.status()),
            "{id} was answered with {:?}",
            shot.answered
        );
    }
    let accepted = shots.iter().filter(|shot| shot.status() == 202);
    accepted.map(|shot| all[shot.index].id.as_str()).collect()
}

/// Each pull request that ever wanted a preview has the name for it, and no two have the same.
fn names_are_given_away(house: &House, kept: &[Delivery]) {
    let wanting = kept.iter().filter(|delivery| {
        delivery.state != DeliveryState::Ignored
            && matches!(
                delivery.event.action,
                PrAction::Opened | PrAction::Synchronize | PrAction::Reopened
            )
    });
    let wanting: BTreeSet<_> = wanting.map(|one| one.event.pull_request.clone()).collect();
    let store = house.store();
    let previews = house.runtime.block_on(store.previews()).expect("reads");
    let named: BTreeSet<_> = previews
        .iter()
        .filter_map(|preview| preview.record.pull_request())
        .collect();
    assert_eq!(previews.len(), named.len());
    assert_eq!(named, wanting);
    house.runtime.block_on(store.close()).expect("closes");
}

/// A worker acts on all that is pending, each once, and returns what it made.
fn act_on_all(house: &House) -> BTreeMap<PullRequest, CommitSha> {
    let store = house.store();
    let made = house.runtime.block_on(work(&store));
    house.runtime.block_on(store.close()).expect("closes");
    for delivery in house.on_disk() {
        let (id, state) = (&delivery.event.delivery, delivery.state);
        assert_ne!(state, DeliveryState::Pending, "{id}");
    }
    made
}

async fn work(store: &Store) -> BTreeMap<PullRequest, CommitSha> {
    let mut made = BTreeMap::new();
    for pull_request in store.pending_pull_requests().await.expect("reads") {
        while let NextDelivery::Process(delivery) =
            store.next_delivery(&pull_request).await.expect("reads")
        {
            let event = delivery.event;
            match event.action {
                PrAction::Closed => drop(made.remove(&pull_request)),
                PrAction::Labeled(_) => {}
                _ => drop(made.insert(pull_request.clone(), event.head_sha)),
            }
            let counted = store
                .finish_delivery(&event.delivery, DeliveryOutcome::Done)
                .await;
            assert!(
                counted.expect("records"),
                "{} was acted on before",
                event.delivery
            );
        }
    }
    made
}
