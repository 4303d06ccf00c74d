//! Thousands of deliveries, good ones and bad ones, while innkeeperd is killed again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use innkeeper_model::preview::PrAction;
use innkeeper_model::preview::api::DeliveryState;
use innkeeper_store::{DeliveryFilter, Next, Outcome, Store};

use crate::support::directory;
use crate::support::intake::{self, IntakeProcess};
use crate::support::load::{self, Shot};
use crate::support::payload::{Sent, sign};
use crate::support::program::Program;

const DELIVERIES: u32 = 5_000;
const PULL_REQUESTS: u32 = 150;
const CONNECTIONS: usize = 32;

/// A generator of numbers that is the same in each run (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((z ^ (z >> 31)) % u64::from(limit)).expect("fits")
    }
}

/// What is sent: good deliveries, some of them twice and in another order, and bad ones in between.
fn weather(dice: &mut Dice) -> Vec<Sent> {
    let actions = [
        "opened",
        "synchronize",
        "synchronize",
        "closed",
        "reopened",
        "labeled",
    ];
    let mut all = Vec::new();
    for n in 0..DELIVERIES {
        let number = u64::from(1 + dice.below(PULL_REQUESTS));
        let action = actions[dice.below(6) as usize];
        let good = Sent::pull_request(&format!("good-{n}"), action, number, n.into());
        match dice.below(100) {
            0..10 => all.push(good.clone()),
            10..15 => all.push(Sent {
                id: format!("forged-{n}"),
                signature: Some(sign("guessed", &good.body)),
                ..good.clone()
            }),
            15..17 => all.push(Sent {
                id: format!("changed-{n}"),
                body: [&good.body[..], b" "].concat().into(),
                ..good.clone()
            }),
            17..19 => all.push(Sent {
                id: format!("unsigned-{n}"),
                signature: None,
                ..good.clone()
            }),
            19..21 => all.push(Sent::signed(&format!("broken-{n}"), "pull_request", "{")),
            21 => {
                let mut body = good.body.to_vec();
                body.resize((1 << 20) + 1 + dice.below(1 << 18) as usize, b' ');
                all.push(Sent::signed(
                    &format!("oversized-{n}"),
                    "pull_request",
                    body,
                ));
            }
            _ => {}
        }
        all.push(good);
    }
    // Each changes its place with one nearby.
    for at in 0..all.len() {
        let other = (at + dice.below(40) as usize).min(all.len() - 1);
        all.swap(at, other);
    }
    all
}

/// The statuses that a delivery may be answered with, by the first word of its id.
fn allowed(id: &str) -> &'static [u16] {
    match id.split('-').next() {
        Some("good") => &[202, 503],
        Some("broken") => &[400],
        Some("oversized") => &[413],
        _ => &[401],
    }
}

#[test]
fn every_accepted_delivery_is_there_once_and_no_other() {
    intake::serve_if_child();
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(storm());
}

async fn storm() {
    let directory = directory();
    let arguments = [
        "storm::every_accepted_delivery_is_there_once_and_no_other",
        "--exact",
        "--nocapture",
    ];
    let mut daemon = IntakeProcess::start(directory.path(), &arguments);
    let program = Program::start(directory.path());
    let all = Arc::new(weather(&mut Dice(3)));
    let storm = load::storm(program.address, &all, CONNECTIONS);
    let kills = 6;
    for kill in 1..=kills {
        storm.reaches(all.len() * kill / (kills + 1)).await;
        daemon.kill_and_restart();
    }
    let (shots, took) = storm.passes().await;
    daemon.kill();
    let (rate, median, last) = load::figures(&shots, took);
    eprintln!(
        "storm of {} with {kills} kills: {rate:.0} accepted a second, median {median:?}, 99th percentile {last:?}",
        all.len()
    );
    let accepted = accepted(&all, &shots);
    assert!(accepted.len() > 4_500, "only {} accepted", accepted.len());

    let store = intake::open(directory.path());
    let kept = store
        .deliveries(DeliveryFilter::default())
        .await
        .expect("reads");
    let there: BTreeSet<_> = kept.iter().map(|d| d.event.delivery.as_str()).collect();
    assert_eq!(there.len(), kept.len(), "one is there twice");
    let lost: Vec<_> = accepted.difference(&there).take(10).collect();
    assert!(lost.is_empty(), "accepted, and not there: {lost:?} …");
    let is_invalid = |id: &&&str| !id.starts_with("good-");
    let invalid: Vec<_> = there.iter().filter(is_invalid).take(10).collect();
    assert!(invalid.is_empty(), "not accepted, and there: {invalid:?} …");
    acted_on_once(&store).await;
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

/// A worker acts on all that is pending; what it makes is what the deliveries say in their order.
async fn acted_on_once(store: &Store) {
    let mut made: BTreeMap<u64, String> = BTreeMap::new();
    for pull_request in store.pending_pull_requests().await.expect("reads") {
        while let Next::Act(delivery) = store.next_for(&pull_request).await.expect("reads") {
            let event = delivery.event;
            match event.action {
                PrAction::Closed => drop(made.remove(&pull_request.number)),
                PrAction::Labeled(_) => {}
                _ => drop(made.insert(pull_request.number, event.head_sha.to_string())),
            }
            let counted = store.finish_delivery(&event.delivery, Outcome::Done).await;
            assert!(
                counted.expect("records"),
                "{} was acted on before",
                event.delivery
            );
        }
    }
    let mut implied: BTreeMap<u64, String> = BTreeMap::new();
    let mut closed = BTreeSet::new();
    let kept = store
        .deliveries(DeliveryFilter::default())
        .await
        .expect("reads");
    for delivery in kept.into_iter().rev() {
        assert_ne!(delivery.state, DeliveryState::Pending);
        let event = delivery.event;
        let number = event.pull_request.number;
        match event.action {
            PrAction::Closed => {
                implied.remove(&number);
                closed.insert(number);
            }
            PrAction::Labeled(_) => {}
            PrAction::Reopened => {
                closed.remove(&number);
                implied.insert(number, event.head_sha.to_string());
            }
            _ if closed.contains(&number) => {}
            _ => drop(implied.insert(number, event.head_sha.to_string())),
        }
    }
    assert_eq!(made, implied);
}
