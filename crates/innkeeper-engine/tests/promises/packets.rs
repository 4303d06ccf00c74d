//! Packets to sleeping guests.

use std::net::Ipv4Addr;
use std::time::Duration;

use innkeeper_engine::Engine;
use innkeeper_model::{GuestState, Level, OperationState, Verb};
use innkeeper_store::EventFilter;
use tokio::task::JoinHandle;

use crate::fixture::{Fixture, config, engine_with, fixture, name};

/// The address of the guest in the first slot.
const WEB: Ipv4Addr = Ipv4Addr::new(10, 100, 0, 3);

/// A sleeping agent `web`, whose packets the engine follows.
struct Asleep {
    fixture: Fixture,
    follower: JoinHandle<()>,
}

fn follow(engine: &Engine) -> JoinHandle<()> {
    let engine = engine.clone();
    tokio::spawn(async move { engine.follow_packets().await })
}

impl Asleep {
    async fn new() -> Self {
        let fixture = fixture();
        fixture.create("web").await;
        let follower = follow(&fixture.engine);
        let asleep = Self { fixture, follower };
        asleep.sleep().await;
        asleep
    }

    async fn sleep(&self) {
        let asleep = self.fixture.engine.sleep(&name("web"), "test").await;
        let operation = self.fixture.ended(asleep.expect("accepted")).await;
        assert_eq!(operation.failure, None);
        let world = self.fixture.host.world();
        assert!(world.parked.contains(&WEB));
        assert!(!world.reached_asleep.contains(&WEB));
    }

    async fn until_awake(&self) {
        let is_awake = async || self.fixture.state("web").await == Some(GuestState::Running);
        self.fixture.until("it is awake", is_awake).await;
    }

    /// Returns the states of the wakes, in order.
    async fn wakes(&self) -> Vec<OperationState> {
        let store = self.fixture.engine.store();
        let events = store.events(EventFilter::default()).await.expect("events");
        let mut ids: Vec<_> = events.iter().filter_map(|event| event.operation).collect();
        ids.dedup();
        let mut wakes = Vec::new();
        for id in ids {
            let operation = store.operation(id).await.expect("read").expect("one");
            if operation.verb == Verb::Wake {
                assert_eq!(operation.actor, "innkeeperd");
                wakes.push(operation.state);
            }
        }
        wakes
    }
}

#[tokio::test]
async fn packet_wakes_a_sleeping_guest_once() {
    let asleep = Asleep::new().await;
    let host = &asleep.fixture.host;
    for round in 1..=2 {
        let starts = host.world().starts;
        // A scan of its ports.
        for _ in 0..100 {
            host.reach(WEB);
        }
        asleep.until_awake().await;
        assert_eq!(host.world().starts, starts + 1);
        assert_eq!(asleep.wakes().await, vec![OperationState::Done; round]);
        assert!(!host.world().parked.contains(&WEB));
        // Until its servers listen.
        assert!(host.world().starting.remove(&WEB));
        asleep.sleep().await;
    }
}

#[tokio::test]
async fn guest_that_does_not_wake_is_not_retried_at_once() {
    let asleep = Asleep::new().await;
    let host = &asleep.fixture.host;
    host.fail("unit.ensure", 1);
    host.reach(WEB);
    let has_failed = async || asleep.wakes().await == [OperationState::Failed];
    asleep.fixture.until("the wake fails", has_failed).await;
    asleep
        .fixture
        .until("it is parked", async || host.world().parked.contains(&WEB))
        .await;
    let guest = asleep.fixture.engine.guest(&name("web")).await;
    assert_eq!(guest.expect("exists").level, Level::Asleep);
    for _ in 0..20 {
        host.reach(WEB);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(asleep.wakes().await, [OperationState::Failed]);
    // A user's wake ends that.
    let woken = asleep.fixture.engine.wake(&name("web"), "test").await;
    let operation = asleep.fixture.ended(woken.expect("accepted")).await;
    assert_eq!(operation.failure, None);
    assert!(host.world().reached_asleep.is_empty());
}

#[tokio::test]
async fn packet_without_a_daemon_wakes_at_its_next_start() {
    let asleep = Asleep::new().await;
    let (host, directory) = (&asleep.fixture.host, asleep.fixture._directory.path());
    asleep.fixture.engine.stop_working().await;
    asleep.follower.abort();
    // As after a reboot of the host.
    host.world().parked.clear();
    let second = engine_with(host, directory, config());
    second.restore().await.expect("restored");
    assert!(host.world().parked.contains(&WEB));
    second.stop_working().await;
    host.reach(WEB);
    // A guest that is gone.
    let other = Ipv4Addr::new(10, 100, 0, 5);
    host.world().parked.insert(other);
    let third = engine_with(host, directory, config());
    third.restore().await.expect("restored");
    let following = follow(&third);
    asleep.until_awake().await;
    assert!(host.world().parked.is_empty());
    following.abort();
}

#[tokio::test]
async fn stopped_and_destroyed_guests_are_not_parked() {
    let asleep = Asleep::new().await;
    let (fixture, host) = (&asleep.fixture, &asleep.fixture.host);
    let stopped = fixture.engine.stop(&name("web"), "test").await;
    fixture.ended(stopped.expect("accepted")).await;
    assert!(host.world().parked.is_empty());
    let started = fixture.engine.start(&name("web"), "test").await;
    fixture.ended(started.expect("accepted")).await;
    asleep.sleep().await;
    fixture.destroy("web").await;
    assert!(host.world().parked.is_empty());
}
