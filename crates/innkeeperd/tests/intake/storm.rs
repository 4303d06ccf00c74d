//! Thousands of valid and invalid deliveries, while the daemon is killed repeatedly.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use innkeeper_model::preview::api::DeliveryState;
use innkeeper_model::preview::{CommitSha, PrAction, PullRequest};
use innkeeper_store::{Delivery, DeliveryOutcome, NextDelivery, Store};

use crate::github::load::{self, SendResult};
use crate::github::payload::RawDelivery;
use crate::host::{IntakeHost, ids};
use crate::workload::{Workload, allowed, implied, is_good};

const DELIVERIES: u32 = 5_000;
const PULL_REQUESTS: u32 = 400;
const CONNECTIONS: usize = 32;
const KILLS: usize = 5;

#[test]
fn a_storm_records_every_accepted_delivery_exactly_once() {
    let host = IntakeHost::new();
    let workload = Workload::new(3, DELIVERIES, PULL_REQUESTS);
    let all = Arc::new(workload.sent.clone());
    let results = send_all(&host, &all);
    let accepted = accepted(&all, &results);
    assert!(accepted.len() > 4_500, "only {} accepted", accepted.len());

    let recorded = host.on_disk();
    let there = ids(&recorded);
    let lost: Vec<_> = accepted.difference(&there).take(10).collect();
    assert!(lost.is_empty(), "accepted and lost: {lost:?} …");
    let invalid: Vec<_> = there.iter().filter(|id| !is_good(id)).take(10).collect();
    assert!(invalid.is_empty(), "invalid and recorded: {invalid:?} …");

    let implied = implied(
        recorded
            .iter()
            .filter_map(|delivery| delivery.event.as_pull_request()),
    );
    let numbers: BTreeSet<_> = implied.keys().map(|one| one.number).collect();
    let expected = workload.expected(&there);
    assert!(expected.present.is_subset(&numbers), "{expected:?}");
    assert!(expected.absent.is_disjoint(&numbers), "{expected:?}");
    assert!(
        expected.present.len() > 20 && expected.absent.len() > 100,
        "{expected:?}"
    );
    assert_unique_names(&host, &recorded);
    assert_eq!(process_all(&host), implied);
}

/// Sends all deliveries, and kills and restarts the daemon meanwhile. No daemon runs afterwards.
fn send_all(host: &IntakeHost, all: &Arc<Vec<RawDelivery>>) -> Vec<SendResult> {
    let mut daemon = host.sandbox.spawn(&[]);
    let webhook = host.webhook();
    let (results, duration) = host.runtime.block_on(async {
        let storm = load::storm(webhook.address, all, CONNECTIONS);
        for kill in 1..=KILLS {
            storm.wait_for(all.len() * kill / (KILLS + 1)).await;
            daemon.kill();
            daemon = host.sandbox.spawn(&[]);
        }
        let finished = storm.finish().await;
        daemon.kill();
        finished
    });
    let (rate, median, last) = load::figures(&results, duration);
    eprintln!(
        "storm of {} with {KILLS} kills in {duration:.1?}: {rate:.0} accepted a second, median {median:.1?}, 99th percentile {last:.1?}",
        all.len()
    );
    results
}

/// Returns the ids of accepted deliveries, and checks that the status of each response is allowed for its delivery.
fn accepted<'a>(all: &'a [RawDelivery], results: &[SendResult]) -> BTreeSet<&'a str> {
    assert_eq!(results.len(), all.len());
    for result in results {
        let id = &all[result.index].id;
        assert!(
            allowed(id).contains(&result.status()),
            "{id}: {:?}",
            result.response
        );
    }
    let accepted = results.iter().filter(|result| result.status() == 202);
    accepted
        .map(|result| all[result.index].id.as_str())
        .collect()
}

/// Checks that each pull request that ever requested a preview has a unique name for it.
fn assert_unique_names(host: &IntakeHost, recorded: &[Delivery]) {
    let requesting = recorded.iter().filter(|delivery| {
        delivery.state != DeliveryState::Ignored
            && matches!(
                delivery.event.as_pull_request().map(|event| &event.action),
                Some(PrAction::Opened | PrAction::Synchronize | PrAction::Reopened)
            )
    });
    let requesting: BTreeSet<_> = requesting
        .map(|one| one.event.pull_request().clone())
        .collect();
    let store = host.store();
    let previews = host.runtime.block_on(store.previews()).expect("reads");
    let named: BTreeSet<_> = previews
        .iter()
        .filter_map(|preview| preview.record.pull_request())
        .collect();
    assert_eq!(previews.len(), named.len());
    assert_eq!(named, requesting);
    host.runtime.block_on(store.close()).expect("closes");
}

/// Processes all pending deliveries once, and returns the resulting previews.
fn process_all(host: &IntakeHost) -> BTreeMap<PullRequest, CommitSha> {
    let store = host.store();
    let previews = host.runtime.block_on(process(&store));
    host.runtime.block_on(store.close()).expect("closes");
    for delivery in host.on_disk() {
        let (id, state) = (delivery.event.id(), delivery.state);
        assert_ne!(state, DeliveryState::Pending, "{id}");
    }
    previews
}

async fn process(store: &Store) -> BTreeMap<PullRequest, CommitSha> {
    let mut previews = BTreeMap::new();
    for pull_request in store.pending_pull_requests().await.expect("reads") {
        while let NextDelivery::Process(delivery) =
            store.next_delivery(&pull_request).await.expect("reads")
        {
            let event = delivery.event.as_pull_request().expect("of a pull request");
            let event = event.clone();
            match event.action {
                PrAction::Closed => drop(previews.remove(&pull_request)),
                PrAction::Labeled(_) => {}
                _ => drop(previews.insert(pull_request.clone(), event.head_sha)),
            }
            let counted = store
                .finish_delivery(&event.delivery, DeliveryOutcome::Done)
                .await;
            assert!(
                counted.expect("records"),
                "{} was processed before",
                event.delivery
            );
        }
    }
    previews
}
