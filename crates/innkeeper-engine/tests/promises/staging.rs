//! Starts after a reboot of the host.

use std::sync::Arc;

use innkeeper_engine::{Edge, Engine, Point};
use innkeeper_model::{EventKind, GuestState, IdlePolicy, Verb};
use innkeeper_store::Store;
use parking_lot::Mutex;

use crate::fixture::{Fixture, config, fixture, name};

const GUESTS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// The starts of units that a probe has seen.
#[derive(Default)]
struct Starts {
    /// Number of guests between their start and the end of their drive.
    now: usize,
    /// The highest number at a time.
    most: usize,
    /// Number of all starts.
    all: usize,
}

/// Creates guests, of which the last is asleep, and ends the daemon and all processes.
async fn rebooted_host() -> Fixture {
    let fixture = fixture();
    for guest in GUESTS {
        fixture.create(guest).await;
    }
    let slept = fixture.engine.sleep(&name("f"), "test").await;
    fixture.ended(slept.expect("accepted")).await;
    fixture.engine.stop_working().await;
    let mut world = fixture.host.world();
    world.units.clear();
    world.links.clear();
    drop(world);
    fixture
}

/// Returns the next daemon's engine and what it starts.
fn next_engine(fixture: &Fixture) -> (Engine, Arc<Mutex<Starts>>) {
    let starts = Arc::new(Mutex::new(Starts::default()));
    let seen = Arc::clone(&starts);
    let probe = move |point: Point| {
        let mut starts = seen.lock();
        match (point.verb, point.step, point.edge) {
            (Verb::Restore, "ensure-unit", Edge::Before) => {
                starts.now += 1;
                starts.all += 1;
                starts.most = starts.most.max(starts.now);
            }
            (Verb::Restore, "release", Edge::After) => starts.now -= 1,
            _ => {}
        }
    };
    let database = fixture._directory.path().join("db");
    let store = Store::open(&database, config().range).expect("opens");
    let host = fixture.host.facilities();
    let engine = Engine::new(config(), store, host, Some(Arc::new(probe)));
    (engine, starts)
}

async fn until_restored(fixture: &Fixture, engine: &Engine) {
    let expected = [vec![GuestState::Running; 5], vec![GuestState::Asleep]].concat();
    let are_restored = async || {
        let mut states = Vec::new();
        for guest in GUESTS {
            let view = engine.show(&name(guest)).await.expect("exists");
            states.push(view.state);
        }
        states == expected
    };
    fixture.until("they are as before", are_restored).await;
}

#[tokio::test]
async fn guests_start_in_turns_after_a_reboot_and_those_that_slept_stay_asleep() {
    let fixture = rebooted_host().await;
    // "e" never rests.
    for guest in ["a", "b", "c", "d"] {
        let own = Some(IdlePolicy::Pause);
        let set = fixture.engine.set_idle_policy(&name(guest), own).await;
        set.expect("set");
    }
    let (engine, starts) = next_engine(&fixture);
    let mut events = engine.journal().subscribe();
    engine.restore().await.expect("restored");
    until_restored(&fixture, &engine).await;
    engine.stop_working().await;
    // Half of `concurrent_starts`.
    assert_eq!(starts.lock().most, 1);
    let mut order = Vec::new();
    while let Ok(event) = events.try_recv() {
        if matches!(&event.kind, EventKind::StepStarted { step } if step == "ensure-unit") {
            order.extend(event.guest.clone());
        }
    }
    // Another one may have come first, while there were turns for all.
    let always_on = order.iter().position(|guest| *guest == name("e"));
    assert!(always_on.is_some_and(|place| place < 2), "{order:?}");
}

#[tokio::test]
async fn daemon_that_ends_starts_no_further_guests_and_the_next_one_does() {
    let fixture = rebooted_host().await;
    let (engine, starts) = next_engine(&fixture);
    engine.restore().await.expect("restored");
    engine.stop_working().await;
    assert!(starts.lock().all < 5, "{}", starts.lock().all);
    let (next, starts) = next_engine(&fixture);
    next.restore().await.expect("restored");
    until_restored(&fixture, &next).await;
    next.stop_working().await;
    assert_eq!(starts.lock().most, 1);
}
