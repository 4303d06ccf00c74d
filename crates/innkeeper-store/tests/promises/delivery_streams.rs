//! Any stream of deliveries leads to the state that the deliveries describe, each processed once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use innkeeper_model::GuestName;
use innkeeper_model::preview::api::DeliveryState;
use innkeeper_model::preview::{CommitSha, PrAction};
use innkeeper_store::{DeliveryFilter, DeliveryOutcome, NewDelivery, NextDelivery, Receipt, Store};
use proptest::prelude::*;

use crate::deliveries::{failure, next};
use crate::support::{Fixture, SUBNET, delivery, name, pull_request, sha};

/// A step of a test run.
#[derive(Clone, Debug)]
enum Step {
    /// GitHub sends a new delivery.
    Arrive {
        number: u64,
        action: PrAction,
        commit: u8,
    },
    /// GitHub redelivers an earlier delivery.
    Again(prop::sample::Index),
    /// The worker of a pull request processes its next delivery.
    Act(u64),
    /// The worker fails for an external cause, and is to retry.
    Fail(u64),
    /// The daemon dies before the worker's result is recorded.
    Die(u64),
    /// A removed preview's record is deleted.
    Forget(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let number = || 1u64..4;
    let action = prop_oneof![
        3 => Just(PrAction::Opened),
        4 => Just(PrAction::Synchronize),
        3 => Just(PrAction::Closed),
        2 => Just(PrAction::Reopened),
        1 => Just(PrAction::Labeled("preview".to_owned())),
        1 => Just(PrAction::Unlabeled),
        1 => Just(PrAction::Edited),
    ];
    prop_oneof![
        8 => (number(), action, any::<u8>())
            .prop_map(|(number, action, commit)| Step::Arrive { number, action, commit }),
        3 => any::<prop::sample::Index>().prop_map(Step::Again),
        4 => number().prop_map(Step::Act),
        1 => number().prop_map(Step::Fail),
        1 => number().prop_map(Step::Die),
        1 => number().prop_map(Step::Forget),
    ]
}

/// The reference model: the commit of each pull request that should have a preview.
#[derive(Default)]
struct Model {
    shown: BTreeMap<u64, CommitSha>,
    closed: BTreeSet<u64>,
}

impl Model {
    fn arrive(&mut self, number: u64, action: &PrAction, commit: u8) {
        match action {
            PrAction::Closed => {
                self.shown.remove(&number);
                self.closed.insert(number);
            }
            PrAction::Reopened => {
                self.closed.remove(&number);
                self.shown.insert(number, sha(commit));
            }
            PrAction::Opened | PrAction::Synchronize if !self.closed.contains(&number) => {
                self.shown.insert(number, sha(commit));
            }
            _ => {}
        }
    }
}

/// The state that the worker has established.
#[derive(Default)]
struct World {
    shown: BTreeMap<u64, CommitSha>,
    finished: Vec<String>,
}

impl World {
    /// Processes the next delivery of a pull request and returns its id.
    async fn act(&mut self, store: &Store, number: u64) -> Option<String> {
        let next = store
            .next_delivery(&pull_request(number))
            .await
            .expect("reads");
        let NextDelivery::Process(delivery) = next else {
            return None;
        };
        let event = delivery.event.as_pull_request().cloned()?;
        match event.action {
            PrAction::Opened | PrAction::Reopened | PrAction::Synchronize => {
                self.shown.insert(number, event.head_sha);
            }
            PrAction::Closed => drop(self.shown.remove(&number)),
            _ => {}
        }
        Some(event.delivery)
    }

    async fn finish(&mut self, store: &Store, id: String) {
        if store
            .finish_delivery(&id, DeliveryOutcome::Done)
            .await
            .expect("records")
        {
            self.finished.push(id);
        }
    }
}

async fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut fixture = Fixture::new(SUBNET);
    let (mut model, mut world) = (Model::default(), World::default());
    let mut sent: Vec<NewDelivery> = Vec::new();
    let mut slugs: BTreeMap<u64, GuestName> = BTreeMap::new();
    for step in steps {
        let store = fixture.store.clone();
        match step {
            Step::Arrive {
                number,
                action,
                commit,
            } => {
                model.arrive(number, &action, commit);
                let mut new = delivery(&format!("d{}", sent.len()), number, action, commit);
                // All pull requests compete for the same name: the first one gets it.
                new.slugs.insert(0, name("web"));
                sent.push(new.clone());
                match store.record_delivery(new).await.expect("records") {
                    Receipt::New { slug: Some(slug) } => {
                        let known = slugs.entry(number).or_insert_with(|| slug.clone());
                        prop_assert_eq!(&*known, &slug, "the slug changed");
                    }
                    Receipt::New { slug: None } | Receipt::Stale { .. } => {}
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            Step::Again(_) if sent.is_empty() => {}
            Step::Again(which) => {
                let again = store.record_delivery(which.get(&sent).clone()).await;
                let is_known = matches!(again, Ok(Receipt::Duplicate { .. }));
                prop_assert!(is_known, "{:?}", again);
            }
            Step::Act(number) => {
                if let Some(id) = world.act(&store, number).await {
                    world.finish(&store, id).await;
                }
            }
            Step::Fail(number) => {
                if let Some(id) = world.act(&store, number).await {
                    let outcome = DeliveryOutcome::Retry {
                        failure: failure(),
                        after: Duration::ZERO,
                    };
                    store.finish_delivery(&id, outcome).await.expect("records");
                }
            }
            Step::Die(number) => {
                world.act(&store, number).await;
                drop(store);
                fixture = fixture.reopened().await;
            }
            Step::Forget(number) => {
                let preview = store
                    .preview_of(&pull_request(number))
                    .await
                    .expect("reads");
                let is_idle = next(&store, number).await.is_none();
                if let Some(preview) = preview
                    && is_idle
                    && !world.shown.contains_key(&number)
                {
                    store
                        .delete_preview(&preview.record.slug)
                        .await
                        .expect("forgets");
                    slugs.remove(&number);
                }
            }
        }
    }
    let store = &fixture.store;
    for pull_request in store.pending_pull_requests().await.expect("reads") {
        while let Some(id) = world.act(store, pull_request.number).await {
            world.finish(store, id).await;
        }
    }
    prop_assert_eq!(world.shown, model.shown);

    let kept = store
        .deliveries(DeliveryFilter::default())
        .await
        .expect("reads");
    let mut finished = world.finished;
    finished.sort();
    let mut done: Vec<String> = Vec::new();
    for delivery in &kept {
        match delivery.state {
            DeliveryState::Done => done.push(delivery.event.id().to_owned()),
            DeliveryState::Superseded | DeliveryState::Ignored => {}
            other => prop_assert!(false, "{} is {}", delivery.event.id(), other),
        }
    }
    done.sort();
    prop_assert_eq!(
        finished,
        done,
        "what was acted on is recorded so, each once"
    );
    let arrival: Vec<_> = kept.iter().rev().map(|d| d.event.id()).collect();
    let order: Vec<_> = sent.iter().map(|new| new.event.id()).collect();
    prop_assert_eq!(
        arrival,
        order,
        "each is there once, in the order of arrival"
    );
    let distinct: BTreeSet<_> = slugs.values().collect();
    prop_assert_eq!(distinct.len(), slugs.len(), "two previews have one slug");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_stream_of_deliveries_matches_the_model(steps in proptest::collection::vec(step(), 0..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        runtime.block_on(run(steps))?;
    }
}

/// Prints the rate of accepted deliveries with 64 concurrent callers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_deliveries_are_all_recorded() {
    const CALLERS: u64 = 64;
    const EACH: u64 = 50;
    let fixture = Fixture::new(SUBNET);
    let start = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|number| {
            let store = fixture.store.clone();
            tokio::spawn(async move {
                for n in 0..EACH {
                    let id = format!("{number}-{n}");
                    let action = match n {
                        0 => PrAction::Opened,
                        _ => PrAction::Synchronize,
                    };
                    let new = delivery(&id, number, action, 1);
                    let recorded = store.record_delivery(new).await.expect("records");
                    assert!(matches!(recorded, Receipt::New { slug: Some(_) }));
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("ends");
    }
    let rate =
        f64::from(u32::try_from(CALLERS * EACH).expect("small")) / start.elapsed().as_secs_f64();
    eprintln!("accepted deliveries a second, {CALLERS} callers: {rate:.0}");
    let kept = fixture
        .store
        .deliveries(DeliveryFilter::default())
        .await
        .expect("reads");
    assert_eq!(kept.len() as u64, CALLERS * EACH);
}
