//! Thousands of deliveries while the daemon is killed repeatedly and the controller processes them. In the end, the previews
//! match the accepted deliveries.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use innkeeper_github::fake::FailureKind;
use innkeeper_model::preview::api::DeliveryState;
use innkeeper_model::preview::{CommitSha, PreviewView, PullRequest};
use innkeeper_store::{Delivery, DeliveryFilter, Store};

use crate::github::load;
use crate::host::PreviewHost;
use crate::support::wait_until;
use crate::workload::{Workload, allowed, implied, is_good};

const DELIVERIES: u32 = 5_000;
const PULL_REQUESTS: u32 = 400;
const CONNECTIONS: usize = 32;
const KILLS: usize = 4;

/// Failures are expected in this storm.
const QUIET: &[(&str, &str)] = &[("INNKEEPER_LOG_LEVEL", "error")];

/// GitHub rejects every configuration permanently, so each preview fails at once, and no delivery is retried. This test
/// checks which previews exist and for which commits; other tests cover their start.
#[test]
fn previews_match_the_accepted_deliveries_after_a_storm() {
    let mut host = PreviewHost::new();
    host.start().stop();
    host.start_webhook();
    // The fake GitHub does not have the storm's pull requests, so its list fails; the resync has its own tests.
    host.github.with(|world| {
        world.fail("GET", "/pulls", u32::MAX, FailureKind::Status(403));
        world.fail("GET", "/git/trees/", u32::MAX, FailureKind::Status(400));
    });
    let workload = Workload::new(7, DELIVERIES, PULL_REQUESTS);
    let all = Arc::new(workload.sent.clone());
    let mut daemon = host.sandbox.spawn(QUIET);
    let address = host.webhook_address();
    let (results, last_daemon) = host.runtime.block_on(async {
        let storm = load::storm(address, &all, CONNECTIONS);
        for kill in 1..=KILLS {
            storm.wait_for(all.len() * kill / (KILLS + 1)).await;
            daemon.kill();
            daemon = host.sandbox.spawn(QUIET);
        }
        (storm.finish().await.0, daemon)
    });
    let mut accepted = BTreeSet::new();
    for result in &results {
        let id = all[result.index].id.as_str();
        assert!(
            allowed(id).contains(&result.status()),
            "{id}: {:?}",
            result.response
        );
        if result.status() == 202 {
            accepted.insert(id);
        }
    }
    last_daemon.kill();
    let daemon = host.sandbox.start_with(QUIET);
    let mut last = BTreeMap::new();
    wait_until("all deliveries are processed", || {
        let views: Vec<PreviewView> = host.client().get("/v1/previews");
        let settled = views.iter().all(|view| view.preview.state.is_settled());
        last = previews(&views);
        let pending = host.client().call("GET", "/v1/deliveries?limit=10000", "");
        settled && !pending.body.contains(r#""state":"pending""#)
    });
    daemon.stop();

    let recorded = on_disk(&host);
    let there: BTreeSet<_> = recorded.iter().map(|one| one.event.id()).collect();
    assert_eq!(there.len(), recorded.len(), "a delivery was recorded twice");
    assert!(accepted.is_subset(&there), "accepted and lost");
    assert!(there.iter().all(|id| is_good(id)), "invalid and recorded");
    for delivery in &recorded {
        assert_ne!(
            delivery.state,
            DeliveryState::Pending,
            "{}",
            delivery.event.id()
        );
        assert!(
            delivery.attempts <= 1,
            "{} was processed twice",
            delivery.event.id()
        );
    }
    let implied = implied(
        recorded
            .iter()
            .filter_map(|delivery| delivery.event.as_pull_request()),
    );
    assert!(implied.len() > 20, "{}", implied.len());
    assert_eq!(last, implied);
    assert_eq!(
        host.root()
            .join("state/guests")
            .read_dir()
            .map_or(0, Iterator::count),
        0
    );
}

fn previews(views: &[PreviewView]) -> BTreeMap<PullRequest, CommitSha> {
    views
        .iter()
        .filter_map(|view| {
            Some((
                view.preview.pull_request()?,
                view.preview.wanted_sha.clone(),
            ))
        })
        .collect()
}

/// Returns all recorded deliveries in the order of arrival, while no daemon runs.
fn on_disk(host: &PreviewHost) -> Vec<Delivery> {
    let range = "10.100.0.0/16".parse().expect("a range");
    let store = Store::open(&host.sandbox.state().join("innkeeper.db"), range).expect("opens");
    let mut recorded = host
        .runtime
        .block_on(store.deliveries(DeliveryFilter::default()))
        .expect("reads");
    recorded.reverse();
    host.runtime.block_on(store.close()).expect("closes");
    recorded
}
