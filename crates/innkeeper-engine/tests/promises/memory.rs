//! A lack of memory on the host.

use std::time::Duration;

use innkeeper_engine::{EngineConfig, EngineError, PressureConfig};
use innkeeper_facilities::MemoryReading;
use innkeeper_facilities::fake::FakeHost;
use innkeeper_model::{
    Code, EventKind, Explain, GuestName, GuestState, IdlePolicy, MemoryBand, OperationState, Trust,
};
use innkeeper_store::EventFilter;

use crate::fixture::{Fixture, config, engine_with, fixture, name};

const GIB: u64 = 1 << 30;

/// A host of 100 GiB without swap.
fn memory(available_gib: u64) -> MemoryReading {
    MemoryReading {
        total: 100 * GIB,
        available: available_gib * GIB,
        swap_total: 0,
        swap_free: 0,
        stalled_percent: Some(0.0),
    }
}

/// Returns an engine for which guests are idle at once.
fn impatient() -> Fixture {
    with(PressureConfig {
        idle: Duration::ZERO,
        ..PressureConfig::default()
    })
}

fn with(pressure: PressureConfig) -> Fixture {
    let directory = tempfile::tempdir().expect("tempdir");
    let host = FakeHost::new();
    let config = EngineConfig {
        pressure,
        ..config()
    };
    let engine = engine_with(&host, directory.path(), config);
    Fixture {
        _directory: directory,
        host,
        engine,
    }
}

impl Fixture {
    fn set_memory(&self, reading: MemoryReading) {
        self.host.world().memory = Some(reading);
    }

    /// Creates a guest that has been idle since its first measurement.
    async fn create_idle(&self, guest: &str) {
        self.create(guest).await;
        let none = Duration::ZERO;
        self.host.world().cpu_time.insert(name(guest), none);
        // The second one shows that it uses no processor.
        for _ in 0..2 {
            self.engine.measure_once().await.expect("measured");
        }
    }

    fn set_guest_memory(&self, guest: &str, gib: u64) {
        let used = gib * GIB;
        self.host.world().guest_memory.insert(name(guest), used);
    }

    async fn relieve(&self) {
        self.engine.relieve_memory().await.expect("memory is read");
    }

    async fn relieve_until(&self, what: &str, condition: impl AsyncFn() -> bool) {
        self.until(what, async || {
            self.relieve().await;
            condition().await
        })
        .await;
    }

    async fn is(&self, guest: &str, state: GuestState) -> bool {
        self.state(guest).await == Some(state)
    }

    /// Returns the notes in the events of a guest; of the host with `None`.
    async fn notes(&self, guest: Option<&str>) -> Vec<String> {
        let events = self.engine.store().events(EventFilter::default()).await;
        let guest: Option<GuestName> = guest.map(name);
        let of_guest = events
            .expect("events")
            .into_iter()
            .filter(|event| event.guest == guest && (guest.is_some() || event.operation.is_none()));
        of_guest
            .filter_map(|event| match event.kind {
                EventKind::Note { text } => Some(text),
                _ => None,
            })
            .collect()
    }
}

#[tokio::test]
async fn idle_guests_are_paused_and_reclaimed() {
    let fixture = impatient();
    fixture.create_idle("web").await;
    fixture.set_guest_memory("web", 2);
    fixture.set_memory(memory(15));
    fixture.relieve().await;
    assert!(fixture.is("web", GuestState::Running).await);

    fixture.set_memory(MemoryReading {
        swap_total: GIB,
        swap_free: GIB,
        ..memory(14)
    });
    fixture
        .relieve_until("its memory is reclaimed", async || {
            fixture.host.world().guest_memory[&name("web")] == 0
        })
        .await;
    assert!(fixture.is("web", GuestState::Paused).await);
    fixture
        .until("both are in the events", async || {
            let notes = fixture.notes(Some("web")).await;
            notes.len() == 2
                && notes[0].starts_with("It was paused: 14 % of the host's memory is available")
                && notes[1] == "2048 MiB of its memory were reclaimed while it is paused."
        })
        .await;
    let host = fixture.notes(None).await;
    assert_eq!(
        host,
        [
            "Idle guests are paused: 14 % of the host's memory is available (pressure.pause_below_percent = 15)."
        ]
    );
    let operations = fixture.engine.store().running_operations().await;
    assert_eq!(operations.expect("read"), []);
}

#[tokio::test]
async fn without_swap_memory_stays_with_paused_guests() {
    let fixture = impatient();
    fixture.create_idle("web").await;
    fixture.set_memory(memory(14));
    fixture
        .relieve_until("it is paused", async || {
            fixture.is("web", GuestState::Paused).await
        })
        .await;
    fixture
        .relieve_until("a reclaim was tried", async || {
            let calls = &fixture.host.world().calls;
            calls.iter().any(|call| call == "unit.reclaim web")
        })
        .await;
    assert_eq!(fixture.notes(Some("web")).await.len(), 1);
}

#[tokio::test]
async fn guest_that_a_user_wants_awake_is_left_alone() {
    let fixture = impatient();
    for guest in ["always", "other"] {
        fixture.create_idle(guest).await;
        fixture.set_guest_memory(guest, 50);
    }
    let own = Some(IdlePolicy::AlwaysOn);
    let set = fixture.engine.set_idle_policy(&name("always"), own).await;
    set.expect("set");
    let report = fixture.engine.usage().await.expect("a report");
    let always = report.iter().find(|usage| usage.name == name("always"));
    let always = always.expect("listed");
    assert_eq!(
        (always.sleep_order, &*always.sleep_reason),
        (None, "its own idle policy is always-on")
    );

    fixture.set_memory(memory(8));
    fixture
        .relieve_until("the other one sleeps", async || {
            fixture.is("other", GuestState::Asleep).await
        })
        .await;
    fixture.relieve().await;
    assert!(fixture.is("always", GuestState::Running).await);
}

#[tokio::test]
async fn longest_idle_guests_sleep_until_there_is_enough() {
    let fixture = impatient();
    for (guest, gib) in [("old", 3), ("large", 4), ("used", 50)] {
        fixture.create_idle(guest).await;
        fixture.set_guest_memory(guest, gib);
    }
    fixture.set_memory(memory(8));
    fixture.relieve().await;
    fixture
        .until("the first one sleeps", async || {
            fixture.is("old", GuestState::Asleep).await
        })
        .await;
    // That was enough: the others are paused.
    fixture.set_memory(memory(11));
    for guest in ["large", "used"] {
        fixture
            .relieve_until("it is paused", async || {
                fixture.is(guest, GuestState::Paused).await
            })
            .await;
    }
    fixture
        .until("the reason is in the events", async || {
            let notes = fixture.notes(Some("old")).await;
            notes.iter().any(|note| {
                note.starts_with("It was put to sleep: 8 % of the host's memory is available (pressure.sleep_below_percent = 10), and it had been idle for")
            })
        })
        .await;
    let reason = async || {
        fixture
            .engine
            .rest_reason(&name("old"))
            .await
            .expect("exists")
    };
    let because = reason().await.expect("a reason");
    assert!(because.starts_with("8 % of the host's memory"), "{because}");
    let report = fixture.engine.usage().await.expect("a report");
    let old = report.iter().find(|usage| usage.name == name("old"));
    assert_eq!(
        old.expect("listed").sleep_reason,
        format!("it is asleep: {because}")
    );
    // One that a user puts to sleep afterwards has no such reason.
    fixture.set_memory(memory(50));
    let woken = fixture.engine.wake(&name("old"), "test").await;
    fixture.ended(woken.expect("accepted")).await;
    assert_eq!(reason().await, None);
    let asleep = fixture.engine.sleep(&name("old"), "test").await;
    fixture.ended(asleep.expect("accepted")).await;
    assert_eq!(reason().await, None);
}

#[tokio::test]
async fn guests_in_use_are_left_alone_unless_in_an_emergency() {
    let fixture = fixture();
    fixture.create_idle("web").await;
    fixture.set_memory(memory(0));
    for _ in 0..3 {
        fixture.relieve().await;
    }
    assert!(fixture.is("web", GuestState::Running).await);

    let fixture = with(PressureConfig {
        emergency_below_percent: 2,
        ..PressureConfig::default()
    });
    fixture.create_idle("web").await;
    fixture.set_memory(memory(1));
    fixture
        .relieve_until("it sleeps", async || {
            fixture.is("web", GuestState::Asleep).await
        })
        .await;
    fixture
        .until("the events tell that it was used", async || {
            let notes = fixture.notes(Some("web")).await;
            notes
                .iter()
                .any(|note| note.ends_with("and it was in use."))
        })
        .await;
}

/// A guest that cannot be paused is not tried again at once.
#[tokio::test]
async fn failure_is_not_repeated_at_once() {
    let fixture = impatient();
    fixture.create_idle("web").await;
    fixture.host.world().without_freezer = true;
    fixture.set_memory(memory(14));
    let tries = || {
        let calls = &fixture.host.world().calls;
        calls
            .iter()
            .filter(|call| *call == "unit.freeze web")
            .count()
    };
    fixture
        .relieve_until("it was tried", async || tries() == 1)
        .await;
    fixture
        .until("the operation has ended", async || {
            let running = fixture.engine.store().running_operations().await;
            running.expect("read").is_empty()
        })
        .await;
    tokio::task::yield_now().await;
    for _ in 0..5 {
        fixture.relieve().await;
    }
    assert_eq!(tries(), 1);
    assert_eq!(fixture.notes(Some("web")).await, Vec::<String>::new());
}

#[tokio::test]
async fn no_guest_is_started_without_memory() {
    let fixture = fixture();
    for guest in ["awake", "paused", "asleep", "stopped"] {
        fixture.create(guest).await;
    }
    let engine = &fixture.engine;
    for accepted in [
        engine.pause(&name("paused"), "test").await,
        engine.sleep(&name("asleep"), "test").await,
        engine.stop(&name("stopped"), "test").await,
    ] {
        fixture.ended(accepted.expect("accepted")).await;
    }
    fixture.set_memory(memory(4));
    let refused = |error: EngineError| {
        assert_eq!(error.code(), Code::MemoryLow);
        assert_eq!(error.mem_available_percent(), Some(4));
        assert!(error.remedy().is_some());
    };
    let created = engine.create(Fixture::request("late"), "test", Trust::Host);
    refused(created.await.expect_err("refused"));
    assert!(engine.guest(&name("late")).await.is_err(), "no record");
    refused(
        engine
            .wake(&name("asleep"), "test")
            .await
            .expect_err("refused"),
    );
    refused(
        engine
            .awaken(&name("asleep"), "test")
            .await
            .expect_err("refused"),
    );
    refused(
        engine
            .start(&name("asleep"), "test")
            .await
            .expect_err("refused"),
    );
    refused(
        engine
            .start(&name("stopped"), "test")
            .await
            .expect_err("refused"),
    );
    // Guests with processes need no more.
    for accepted in [
        engine.wake(&name("paused"), "test").await,
        engine.start(&name("awake"), "test").await,
    ] {
        let operation = fixture.ended(accepted.expect("accepted")).await;
        assert_eq!(operation.state, OperationState::Done);
    }
    let missing = engine.start(&name("missing"), "test").await;
    assert_eq!(
        missing.expect_err("refused").code(),
        Code::GuestNotFound,
        "a name that is wrong is no lack of memory"
    );
    let status = engine.status(jiff::Timestamp::UNIX_EPOCH).await;
    let memory_now = status.expect("a status").memory.expect("memory");
    assert_eq!(
        (memory_now.available_percent, memory_now.band),
        (4, MemoryBand::Refuse)
    );

    // Unknown memory refuses none, and neither does enough.
    fixture.host.fail("memory.read", 1);
    let woken = engine.wake(&name("asleep"), "test").await;
    fixture.ended(woken.expect("accepted")).await;
    fixture.set_memory(memory(5));
    let started = engine.start(&name("stopped"), "test").await;
    fixture.ended(started.expect("accepted")).await;
}
