//! Every delivery that was accepted is acted on once, and the outcome is what the deliveries say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use innkeeper_model::preview::api::DeliveryState;
use innkeeper_model::preview::{
    BranchName, CommitSha, PrAction, PullRequest, PullRequestEvent, RepoName,
};
use innkeeper_model::{Code, Failure, GuestName};
use innkeeper_store::{
    DeliveryFilter, DeliveryOutcome, NewDelivery, NextDelivery, Presence, PreviewFact, Receipt,
    Store, StoreError, retry_after,
};
use jiff::Timestamp;
use proptest::prelude::*;

use crate::support::{Fixture, create, name};

const SUBNET: &str = "10.100.0.0/16";

pub(crate) fn pull_request(number: u64) -> PullRequest {
    PullRequest {
        repo: RepoName::parse("octo/web").expect("repository"),
        number,
    }
}

pub(crate) fn sha(n: u8) -> CommitSha {
    CommitSha::parse(&format!("{n:040x}")).expect("commit")
}

pub(crate) fn event(id: &str, number: u64, action: PrAction, commit: u8) -> PullRequestEvent {
    let repo = RepoName::parse("octo/web").expect("repository");
    PullRequestEvent {
        delivery: id.to_owned(),
        action,
        pull_request: pull_request(number),
        repo_id: None,
        head_repo: Some(repo),
        head_sha: sha(commit),
        head_branch: BranchName::parse("topic").expect("branch"),
        base_branch: BranchName::parse("main").expect("branch"),
        is_fork: false,
        author: "alice".to_owned(),
        sender: "alice".to_owned(),
        title_changed: false,
        body_changed: false,
        base_changed: false,
        merged: false,
        updated_at: None,
    }
}

pub(crate) fn delivery(id: &str, number: u64, action: PrAction, commit: u8) -> NewDelivery {
    NewDelivery {
        event: event(id, number, action, commit),
        received_at: Timestamp::now(),
        slugs: vec![name(&format!("web-{number}"))],
    }
}

async fn record(store: &Store, id: &str, action: PrAction, commit: u8) -> Receipt {
    store
        .record_delivery(delivery(id, 1, action, commit))
        .await
        .expect("records")
}

/// The delivery to act on now, by its id.
async fn next(store: &Store, number: u64) -> Option<String> {
    match store
        .next_delivery(&pull_request(number))
        .await
        .expect("reads")
    {
        NextDelivery::Process(delivery) => Some(delivery.event.delivery),
        NextDelivery::WaitUntil(_) | NextDelivery::None => None,
    }
}

async fn state(store: &Store, id: &str) -> DeliveryState {
    let delivery = store.delivery(id).await.expect("reads");
    delivery.expect("is kept").state
}

fn failure() -> Failure {
    Failure::new(Code::TimedOut, "GitHub does not answer")
}

#[tokio::test]
async fn the_newest_commit_takes_the_place_of_older_ones_also_of_one_in_work() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    record(store, "a", PrAction::Opened, 1).await;
    assert_eq!(next(store, 1).await.as_deref(), Some("a"));
    record(store, "b", PrAction::Synchronize, 2).await;
    record(store, "c", PrAction::Synchronize, 3).await;
    assert_eq!(next(store, 1).await.as_deref(), Some("c"));
    let counted = store.finish_delivery("a", DeliveryOutcome::Done).await;
    assert!(!counted.expect("answers"), "it was superseded meanwhile");
    for id in ["a", "b"] {
        assert_eq!(state(store, id).await, DeliveryState::Superseded);
    }
    assert!(
        store
            .finish_delivery("c", DeliveryOutcome::Done)
            .await
            .expect("ends")
    );
    assert_eq!(next(store, 1).await, None);
    assert_eq!(store.pending_pull_requests().await.expect("reads"), []);
}

#[tokio::test]
async fn what_somebody_wants_is_not_undone_by_a_delivery_from_before() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let (slug, desired) = (name("web-1"), |desired| vec![PreviewFact::Desired(desired)]);
    record(store, "a", PrAction::Opened, 1).await;
    let follow = |id| store.set_preview_for_delivery(id, &slug, desired(Presence::Present));
    assert!(follow("a").await.expect("records").is_some());
    // It fails, is to be tried again, and somebody loses patience.
    let retry = DeliveryOutcome::Retry {
        failure: failure(),
        after: Duration::ZERO,
    };
    store.finish_delivery("a", retry).await.expect("ends");
    store
        .override_preview(&slug, desired(Presence::Absent))
        .await
        .expect("records");
    assert_eq!(next(store, 1).await, None);
    assert_eq!(state(store, "a").await, DeliveryState::Superseded);
    assert_eq!(follow("a").await.expect("answers"), None);
    let now = store.preview(&slug).await.expect("reads").expect("there");
    assert_eq!(now.desired, Presence::Absent);

    // What comes later counts, and `closed` is not overruled.
    record(store, "b", PrAction::Synchronize, 2).await;
    assert_eq!(next(store, 1).await.as_deref(), Some("b"));
    record(store, "c", PrAction::Closed, 2).await;
    store
        .override_preview(&slug, desired(Presence::Present))
        .await
        .expect("records");
    assert_eq!(next(store, 1).await.as_deref(), Some("c"));
}

#[tokio::test]
async fn one_can_see_because_of_which_delivery_another_came_to_nothing() {
    async fn yields_to(store: &Store, id: &str) -> Option<String> {
        let delivery = store.delivery(id).await.expect("reads").expect("is kept");
        let other = store.superseding_delivery(&delivery).await.expect("reads");
        other.map(|other| other.event.delivery)
    }

    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    record(store, "a", PrAction::Opened, 1).await;
    assert_eq!(yields_to(store, "a").await, None);
    record(store, "b", PrAction::Labeled("x".to_owned()), 1).await;
    record(store, "c", PrAction::Synchronize, 2).await;
    record(store, "d", PrAction::Closed, 2).await;
    assert_eq!(
        yields_to(store, "a").await.as_deref(),
        Some("c"),
        "before it was noticed"
    );
    assert_eq!(next(store, 1).await.as_deref(), Some("b"));
    for (id, newer) in [("a", Some("c")), ("b", None), ("c", Some("d")), ("d", None)] {
        assert_eq!(yields_to(store, id).await.as_deref(), newer, "{id}");
    }
    record(store, "late", PrAction::Synchronize, 3).await;
    assert_eq!(yields_to(store, "late").await.as_deref(), Some("d"));
    for id in ["b", "d"] {
        let done = store.finish_delivery(id, DeliveryOutcome::Done).await;
        assert!(done.expect("ends"), "{id}");
    }
    record(store, "again", PrAction::Reopened, 3).await;
    assert_eq!(yields_to(store, "d").await, None, "what was done was done");
}

#[tokio::test]
async fn what_was_said_before_the_newest_intent_does_not_count_when_it_arrives_late() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let record = async |id: &str, action, said: &str| {
        let mut new = delivery(id, 1, action, 1);
        new.event.updated_at = Some(format!("2026-11-20T{said}Z").parse().expect("a time"));
        store.record_delivery(new).await.expect("records")
    };
    let slug = Some(name("web-1"));
    let counts = Receipt::New { slug: slug.clone() };
    let late = Receipt::Stale { slug };
    for (id, action, said, expected) in [
        ("d1", PrAction::Reopened, "10:00:30", &counts),
        ("d2", PrAction::Closed, "10:00:00", &late),
        ("d3", PrAction::Opened, "09:00:00", &late),
        // At about the same time, the order of arrival is what there is.
        ("d4", PrAction::Synchronize, "10:00:25", &counts),
        ("d5", PrAction::Labeled("x".to_owned()), "09:00:00", &counts),
        ("d6", PrAction::Closed, "10:01:00", &counts),
        ("d7", PrAction::Reopened, "10:00:30", &late),
        ("d8", PrAction::Reopened, "10:02:00", &counts),
        // Of what is closed, no commits are told: it was opened again, and that was lost.
        ("d9", PrAction::Closed, "10:03:00", &counts),
        ("d10", PrAction::Synchronize, "10:03:01", &late),
        ("d11", PrAction::Synchronize, "10:04:00", &counts),
    ] {
        assert_eq!(&record(id, action, said).await, expected, "{id}");
    }
    let ignored = store.delivery("d2").await.expect("reads").expect("kept");
    let first = store.superseding_delivery(&ignored).await.expect("reads");
    assert_eq!(first.expect("one").event.delivery, "d1");
}

#[tokio::test]
async fn after_closed_only_reopened_counts() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    record(store, "a", PrAction::Opened, 1).await;
    record(store, "b", PrAction::Closed, 1).await;
    let late = record(store, "c", PrAction::Synchronize, 2).await;
    assert!(matches!(late, Receipt::Stale { .. }), "{late:?}");
    assert_eq!(state(store, "c").await, DeliveryState::Ignored);
    assert_eq!(next(store, 1).await.as_deref(), Some("b"));
    record(store, "d", PrAction::Reopened, 2).await;
    record(store, "e", PrAction::Synchronize, 3).await;
    assert_eq!(next(store, 1).await.as_deref(), Some("e"));
}

#[tokio::test]
async fn labels_are_all_acted_on_in_their_order() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let label = || PrAction::Labeled("preview".to_owned());
    record(store, "a", label(), 1).await;
    record(store, "b", PrAction::Unlabeled, 1).await;
    record(store, "c", PrAction::Synchronize, 2).await;
    let retry = DeliveryOutcome::Retry {
        failure: failure(),
        after: Duration::from_secs(3600),
    };
    store.finish_delivery("a", retry).await.expect("records");
    assert_eq!(
        next(store, 1).await.as_deref(),
        Some("c"),
        "a new commit does not wait for a label, and the second label does not overtake the first"
    );
    store
        .finish_delivery("c", DeliveryOutcome::Done)
        .await
        .expect("ends");
    let NextDelivery::WaitUntil(until) =
        store.next_delivery(&pull_request(1)).await.expect("reads")
    else {
        panic!("'b' must wait for 'a'");
    };
    assert!(until > Timestamp::now());
    store.replay_delivery("a").await.expect("replays");
    for id in ["a", "b"] {
        assert_eq!(next(store, 1).await.as_deref(), Some(id));
        store
            .finish_delivery(id, DeliveryOutcome::Done)
            .await
            .expect("ends");
    }
}

#[tokio::test]
async fn a_failure_outside_is_tried_again_and_one_inside_is_not() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    record(store, "a", PrAction::Opened, 1).await;
    let again = DeliveryOutcome::Retry {
        failure: failure(),
        after: Duration::ZERO,
    };
    store.finish_delivery("a", again).await.expect("records");
    let NextDelivery::Process(delivery) =
        store.next_delivery(&pull_request(1)).await.expect("reads")
    else {
        panic!("it is due");
    };
    assert_eq!((delivery.attempts, delivery.failure), (1, Some(failure())));
    store
        .finish_delivery("a", DeliveryOutcome::Failed(failure()))
        .await
        .expect("records");
    assert_eq!(next(store, 1).await, None);

    let replayed = store.replay_delivery("a").await.expect("replays");
    assert_eq!(
        (replayed.state, replayed.attempts),
        (DeliveryState::Pending, 0)
    );
    record(store, "b", PrAction::Synchronize, 2).await;
    assert_eq!(next(store, 1).await.as_deref(), Some("b"));
    store
        .finish_delivery("b", DeliveryOutcome::Done)
        .await
        .expect("ends");
    store.replay_delivery("a").await.expect("replays");
    assert_eq!(
        next(store, 1).await,
        None,
        "an old commit does not come back"
    );
    assert_eq!(state(store, "a").await, DeliveryState::Superseded);

    let unknown = store.replay_delivery("nobody").await.expect_err("unknown");
    assert!(matches!(unknown, StoreError::DeliveryNotFound { .. }));
    let waits: Vec<u64> = (1..9).map(|n| retry_after(n).as_secs()).collect();
    assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 600]);
}

#[tokio::test]
async fn the_first_delivery_takes_the_slug_and_later_ones_find_it() {
    let fixture = Fixture::new(SUBNET);
    create(&fixture.store, "web-1").await;
    let mut new = delivery("a", 1, PrAction::Opened, 1);
    let taken = fixture.store.record_delivery(new.clone()).await;
    assert_eq!(taken.expect("answers"), Receipt::SlugsTaken);
    assert_eq!(fixture.store.delivery("a").await.expect("reads"), None);

    new.slugs.push(name("other-1"));
    let slug = Some(name("other-1"));
    let accepted = fixture.store.record_delivery(new).await.expect("records");
    assert_eq!(accepted, Receipt::New { slug: slug.clone() });
    let fixture = fixture.reopened().await;
    let mut upper = delivery("b", 1, PrAction::Closed, 1);
    upper.event.pull_request.repo = RepoName::parse("Octo/WEB").expect("repository");
    let closed = fixture.store.record_delivery(upper.clone()).await;
    assert_eq!(
        closed.expect("records"),
        Receipt::New { slug: slug.clone() }
    );
    let again = fixture.store.record_delivery(upper).await.expect("records");
    assert_eq!(again, Receipt::Duplicate { slug });
    assert_eq!(next(&fixture.store, 1).await.as_deref(), Some("b"));
}

#[tokio::test]
async fn lists_are_filtered_and_newest_first() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    for n in 1..=4 {
        let new = delivery(&format!("d{n}"), n, PrAction::Opened, 1);
        store.record_delivery(new).await.expect("records");
    }
    store
        .finish_delivery("d2", DeliveryOutcome::Done)
        .await
        .expect("ends");
    let ids = async |filter| -> Vec<String> {
        let list = store.deliveries(filter).await.expect("reads");
        list.into_iter().map(|d| d.event.delivery).collect()
    };
    assert_eq!(
        ids(DeliveryFilter::default()).await,
        ["d4", "d3", "d2", "d1"]
    );
    let done = DeliveryFilter {
        state: Some(DeliveryState::Done),
        ..DeliveryFilter::default()
    };
    assert_eq!(ids(done).await, ["d2"]);
    let older = DeliveryFilter {
        repo: Some(RepoName::parse("OCTO/web").expect("repository")),
        before: Some(4),
        limit: 2,
        ..DeliveryFilter::default()
    };
    assert_eq!(ids(older).await, ["d3", "d2"]);
    let one = DeliveryFilter {
        number: Some(3),
        ..DeliveryFilter::default()
    };
    assert_eq!(ids(one).await, ["d3"]);
}

/// What can happen.
#[derive(Clone, Debug)]
enum Step {
    /// GitHub delivers something new.
    Arrive {
        number: u64,
        action: PrAction,
        commit: u8,
    },
    /// GitHub delivers again what it delivered before.
    Again(prop::sample::Index),
    /// The worker of a pull request acts on what it is given.
    Act(u64),
    /// It acts, fails for a cause outside, and is to try again.
    Fail(u64),
    /// It acts, and the daemon dies before this is recorded.
    Die(u64),
    /// A preview that should be absent was seen gone.
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

/// What the deliveries imply, in the simplest words: the commit of each pull request that has a preview.
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

/// The worker: what it has made of the deliveries that it was given.
#[derive(Default)]
struct World {
    shown: BTreeMap<u64, CommitSha>,
    finished: Vec<String>,
}

impl World {
    /// Acts on the next delivery of a pull request and returns its id.
    async fn act(&mut self, store: &Store, number: u64) -> Option<String> {
        let next = store
            .next_delivery(&pull_request(number))
            .await
            .expect("reads");
        let NextDelivery::Process(delivery) = next else {
            return None;
        };
        let event = delivery.event;
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
                // Everybody wants the same name: whoever comes first has it.
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
            DeliveryState::Done => done.push(delivery.event.delivery.clone()),
            DeliveryState::Superseded | DeliveryState::Ignored => {}
            other => prop_assert!(false, "{} is {}", delivery.event.delivery, other),
        }
    }
    done.sort();
    prop_assert_eq!(
        finished,
        done,
        "what was acted on is recorded so, each once"
    );
    let arrival: Vec<_> = kept.iter().rev().map(|d| &d.event.delivery).collect();
    let order: Vec<_> = sent.iter().map(|new| &new.event.delivery).collect();
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
    fn any_stream_of_deliveries_ends_as_it_says(steps in proptest::collection::vec(step(), 0..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        runtime.block_on(run(steps))?;
    }
}

/// Prints how many deliveries are accepted in a second when 64 arrive at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_deliveries_share_transactions() {
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

#[tokio::test]
async fn intents_of_the_same_time_are_tied_when_their_order_makes_a_difference() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let arrive = async |id: &str, action: PrAction, commit: u8, at: &str| {
        let mut new = delivery(id, 1, action, commit);
        new.event.updated_at = Some(format!("2026-11-20T{at}Z").parse().expect("a time"));
        store.record_delivery(new).await.expect("records");
    };
    let tie = async |id: &str| {
        let delivery = store.delivery(id).await.expect("reads").expect("kept");
        let tie = store.latest_tied_time(&delivery).await.expect("reads");
        tie.map(|time| time.strftime("%T").to_string())
    };
    arrive("opened", PrAction::Opened, 1, "10:00:00").await;
    arrive("push", PrAction::Synchronize, 2, "10:01:00").await;
    assert_eq!(tie("push").await, None, "the times tell them apart");
    arrive("closed", PrAction::Closed, 2, "10:01:02").await;
    assert_eq!(tie("closed").await, None, "nobody pushes to what is closed");
    arrive("edited", PrAction::Edited, 2, "10:01:02").await;
    arrive("reopened", PrAction::Reopened, 2, "10:01:01").await;
    assert_eq!(tie("reopened").await.as_deref(), Some("10:01:02"));
    assert_eq!(tie("closed").await.as_deref(), Some("10:01:02"));
    assert_eq!(tie("push").await, None, "it shows the same commit");
    arrive("other", PrAction::Synchronize, 3, "10:01:03").await;
    assert_eq!(tie("push").await.as_deref(), Some("10:01:03"));
    assert_eq!(tie("opened").await, None);
}
