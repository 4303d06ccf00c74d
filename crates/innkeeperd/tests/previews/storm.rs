//! Thousands of deliveries while the daemon is killed again and again, with the controller acting on them: in the end
//! the previews are those that the accepted deliveries imply.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use innkeeper_github::fake::FailureKind;
use innkeeper_model::preview::api::DeliveryState;
use innkeeper_model::preview::{CommitSha, PreviewView, PullRequest};
use innkeeper_store::{Delivery, DeliveryFilter, Store};

use crate::github::load;
use crate::support::wait_until;
use crate::town::Town;
use crate::weather::{Weather, allowed, implied, is_good};

const DELIVERIES: u32 = 5_000;
const PULL_REQUESTS: u32 = 400;
const CONNECTIONS: usize = 32;
const KILLS: usize = 4;

/// What fails in this storm is no news.
const QUIET: &[(&str, &str)] = &[("INNKEEPER_LOG_LEVEL", "error")];

/// GitHub refuses every configuration for good, so each preview fails at once, and no delivery is tried again. That
/// it becomes one, and which commit it wants, is what this test is about; that it comes up has its own tests.
#[test]
fn after_a_storm_the_previews_are_those_that_the_accepted_deliveries_imply() {
    let mut town = Town::new();
    town.start().stop();
    town.start_webhook();
    // The storm's pull requests are none that GitHub knows; what is compared with its list has its own tests.
    town.github.with(|world| {
        world.fail("GET", "/pulls", u32::MAX, FailureKind::Status(403));
        world.fail("GET", "/contents/", u32::MAX, FailureKind::Status(400));
    });
    let weather = Weather::new(7, DELIVERIES, PULL_REQUESTS);
    let all = Arc::new(weather.sent.clone());
    let mut daemon = town.sandbox.spawn(QUIET);
    let address = town.webhook_address();
    let (shots, last_daemon) = town.runtime.block_on(async {
        let storm = load::storm(address, &all, CONNECTIONS);
        for kill in 1..=KILLS {
            storm.reaches(all.len() * kill / (KILLS + 1)).await;
            daemon.kill();
            daemon = town.sandbox.spawn(QUIET);
        }
        (storm.passes().await.0, daemon)
    });
    let mut accepted = BTreeSet::new();
    for shot in &shots {
        let id = all[shot.index].id.as_str();
        assert!(
            allowed(id).contains(&shot.status()),
            "{id}: {:?}",
            shot.answered
        );
        if shot.status() == 202 {
            accepted.insert(id);
        }
    }
    last_daemon.kill();
    let daemon = town.sandbox.start_with(QUIET);
    let mut last = BTreeMap::new();
    wait_until("all is acted on", || {
        let views: Vec<PreviewView> = town.client().get("/v1/previews");
        let settled = views.iter().all(|view| view.preview.state.is_settled());
        last = previews(&views);
        let pending = town.client().call("GET", "/v1/deliveries?limit=10000", "");
        settled && !pending.body.contains(r#""state":"pending""#)
    });
    daemon.stop();

    let kept = on_disk(&town);
    let there: BTreeSet<_> = kept.iter().map(|one| one.event.delivery.as_str()).collect();
    assert_eq!(there.len(), kept.len(), "one is there twice");
    assert!(accepted.is_subset(&there), "accepted, and not there");
    assert!(
        there.iter().all(|id| is_good(id)),
        "not accepted, and there"
    );
    for delivery in &kept {
        assert_ne!(
            delivery.state,
            DeliveryState::Pending,
            "{}",
            delivery.event.delivery
        );
        assert!(
            delivery.attempts <= 1,
            "{} was acted on twice",
            delivery.event.delivery
        );
    }
    let implied = implied(kept.iter().map(|delivery| &delivery.event));
    assert!(implied.len() > 20, "{}", implied.len());
    assert_eq!(last, implied);
    assert_eq!(
        town.root()
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

/// All that is on disk, in the order of arrival, when no daemon runs.
fn on_disk(town: &Town) -> Vec<Delivery> {
    let range = "10.100.0.0/16".parse().expect("a range");
    let store = Store::open(&town.sandbox.state().join("innkeeper.db"), range).expect("opens");
    let mut kept = town
        .runtime
        .block_on(store.deliveries(DeliveryFilter::default()))
        .expect("reads");
    kept.reverse();
    town.runtime.block_on(store.close()).expect("closes");
    kept
}
