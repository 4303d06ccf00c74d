//! The warm pool: guests that have booted a closure wait, paused, until a new agent takes their place.

use std::path::Path;
use std::time::Duration;

use innkeeper_engine::{Engine, EngineConfig, WarmConfig, WarmGuests};
use innkeeper_facilities::MemoryReading;
use innkeeper_facilities::fake::{FakeHost, a_closure};
use innkeeper_model::api::{BuildRequest, Check, CreateRequest, GcRequest, Verdict};
use innkeeper_model::{
    ClosureSource, GuestName, GuestState, Installable, MemorySize, SlotRange, StorePath, Trust,
    UnitPhase,
};

use crate::fixture::{Fixture, config, engine_with, name};

const MIB: u64 = 1 << 20;

fn of_closure(size: usize) -> Vec<WarmGuests> {
    vec![WarmGuests {
        source: ClosureSource::Path(a_closure()),
        size,
    }]
}

fn warm_config(guests: Vec<WarmGuests>) -> EngineConfig {
    let warm = WarmConfig {
        guests,
        busy_percent: 50,
        exercise_interval: WarmConfig::EXERCISE_INTERVAL,
    };
    EngineConfig { warm, ..config() }
}

async fn start(host: &FakeHost, directory: &Path, config: EngineConfig) -> Engine {
    let engine = engine_with(host, directory, config);
    engine.restore().await.expect("restored");
    let keeping = engine.clone();
    tokio::spawn(async move { keeping.keep_seats().await });
    engine
}

async fn fixture_with(host: FakeHost, config: EngineConfig) -> Fixture {
    let directory = tempfile::tempdir().expect("tempdir");
    let engine = start(&host, directory.path(), config).await;
    Fixture {
        _directory: directory,
        host,
        engine,
    }
}

/// An engine with warm guests, and its host.
async fn pooled(size: usize) -> Fixture {
    let fixture = fixture_with(FakeHost::new(), warm_config(of_closure(size))).await;
    filled(&fixture, size).await;
    fixture
}

async fn filled(fixture: &Fixture, size: usize) {
    fixture
        .until("the pool is full", async || {
            finding(fixture)
                .await
                .finding
                .starts_with(&format!("{size} of {size} guests"))
                && seats(&fixture.host).len() == size
        })
        .await;
}

async fn finding(fixture: &Fixture) -> Check {
    let report = fixture.engine.doctor().await.expect("a report");
    let mut checks = report.checks.into_iter();
    checks
        .find(|check| check.subject == "warm pool")
        .expect("a check")
}

/// The seats with processes.
fn seats(host: &FakeHost) -> Vec<GuestName> {
    let world = host.world();
    let seats = world.units.keys().filter(|name| name.is_seat());
    seats.cloned().collect()
}

/// The calls since `from` that concern this guest.
fn calls(host: &FakeHost, from: usize, guest: &str) -> Vec<String> {
    let world = host.world();
    let calls = world.calls.iter().skip(from);
    let of_guest = calls.filter(|call| call.split(' ').nth(1) == Some(guest));
    of_guest
        .map(|call| call.split(' ').next().unwrap_or_default().to_owned())
        .collect()
}

fn memory(available: u64) -> MemoryReading {
    MemoryReading {
        total: 1000 * MIB,
        available: available * MIB,
        swap_total: 0,
        swap_free: 0,
        stalled_percent: None,
    }
}

#[tokio::test]
async fn create_takes_a_warm_guest_and_another_one_is_booted() {
    let fixture = pooled(1).await;
    let first = seats(&fixture.host);
    assert!(fixture.host.world().frozen.contains(&first[0]));
    let from = fixture.host.world().calls.len();
    assert_eq!(fixture.create("web").await.failure, None);
    assert_eq!(fixture.state("web").await, Some(GuestState::Running));
    let guest = fixture.engine.guest(&name("web")).await.expect("there");
    assert_eq!(first, [GuestName::of_seat(guest.slot)]);
    assert_eq!(guest.ssh_host_key.as_deref(), Some("ssh-ed25519 AAAA"));
    // Its init runs already, and so do its processes only after it has its name and its keys.
    let done = calls(&fixture.host, from, "web");
    let place = |call: &str| done.iter().position(|one| one == call);
    for never in [
        "unit.release",
        "unit.ensure",
        "rootfs.ensure",
        "network.ensure",
    ] {
        assert_eq!(place(never), None, "{done:?}");
    }
    let thawed = place("unit.thaw").expect("it continues");
    for before in ["unit.take_seat", "closure.ensure", "secrets.take_over"] {
        assert!(place(before).expect(before) < thawed, "{done:?}");
    }
    {
        let world = fixture.host.world();
        assert!(world.host_names.contains(&name("web")));
        assert!(!world.frozen.contains(&name("web")));
        assert!(!world.roots.contains(&first[0]), "the root of the seat");
    }
    filled(&fixture, 1).await;
    assert_ne!(first, seats(&fixture.host));
    assert_eq!(fixture.destroy("web").await.failure, None);
    let world = fixture.host.world();
    let mut names = world.trees.keys().chain(world.units.keys());
    assert!(names.all(GuestName::is_seat));
}

#[tokio::test]
async fn guests_that_differ_are_started_as_ever() {
    let fixture = pooled(1).await;
    let former = seats(&fixture.host);
    let other = "/nix/store/00000000000000000000000000000000-other";
    let requests = [
        CreateRequest {
            memory: Some(MemorySize::from_bytes(1 << 29)),
            ..Fixture::request("small")
        },
        CreateRequest {
            closure: Some(StorePath::parse(other).expect("valid")),
            ..Fixture::request("other")
        },
    ];
    for request in requests {
        let accepted = fixture.engine.create(request, "test", Trust::Host).await;
        let operation = fixture.ended(accepted.expect("accepted")).await;
        assert_eq!(operation.failure, None);
    }
    let preview = fixture
        .engine
        .create_preview(&name("preview"), &a_closure(), "test")
        .await;
    assert_eq!(
        fixture.ended(preview.expect("accepted")).await.failure,
        None
    );
    assert_eq!(seats(&fixture.host), former);
    let taken = "unit.take_seat";
    let world = fixture.host.world();
    assert!(!world.calls.iter().any(|call| call.starts_with(taken)));
}

#[tokio::test]
async fn create_with_a_warm_guest_leaves_nothing_when_a_step_fails() {
    for step in [
        "rootfs.rename",
        "network.rename",
        "unit.take_seat",
        "closure.ensure",
        "secrets.take_over",
        "unit.thaw",
    ] {
        let fixture = pooled(1).await;
        fixture.host.fail(step, 1);
        let failure = fixture.create("web").await.failure;
        let failure = failure.unwrap_or_else(|| panic!("{step} did not fail"));
        assert!(failure.message.contains(step), "{step}: {failure:?}");
        assert_eq!(fixture.state("web").await, None, "{step}");
        let world = fixture.host.world();
        let names = world.trees.keys().chain(world.units.keys());
        let mut names = names.chain(&world.links).chain(&world.roots);
        assert!(names.all(GuestName::is_seat), "{step}");
    }
}

#[tokio::test]
async fn warm_guest_that_has_ended_does_not_fail_a_create() {
    let fixture = pooled(1).await;
    fixture.host.end_quietly(&seats(&fixture.host)[0], 137);
    assert_eq!(fixture.create("web").await.failure, None);
    assert_eq!(fixture.state("web").await, Some(GuestState::Running));
}

#[tokio::test]
async fn warm_guest_that_cannot_be_made_leaves_nothing() {
    for step in [
        "closure.ensure",
        "rootfs.ensure",
        "secrets.ensure",
        "unit.ensure",
        "network.ensure",
        "unit.release",
        "unit.freeze",
    ] {
        let host = FakeHost::new();
        host.fail(step, 1);
        let fixture = fixture_with(host, warm_config(of_closure(1))).await;
        fixture
            .until("the failure is reported", async || {
                let check = finding(&fixture).await;
                check.verdict == Verdict::Warning && check.finding.contains(step)
            })
            .await;
        assert!(fixture.host.world().is_empty(), "{step}: something is left");
        let recorded = fixture.engine.store().seats().await.expect("read");
        assert_eq!(recorded, [], "{step}");
        assert_eq!(fixture.create("web").await.failure, None);
    }
}

#[tokio::test]
async fn warm_guests_are_no_orphans_and_no_guests() {
    let fixture = pooled(2).await;
    let report = fixture.engine.gc(GcRequest::default()).await;
    assert_eq!(report.expect("a report").orphans, []);
    assert_eq!(fixture.engine.list().await.expect("listed"), []);
    assert_eq!(fixture.engine.usage().await.expect("listed"), []);
    let status = fixture.engine.status(jiff::Timestamp::UNIX_EPOCH).await;
    let status = status.expect("a status");
    assert_eq!(status.guests, []);
    let waiting: Vec<_> = status.pools.iter().map(|check| &check.finding).collect();
    assert!(
        waiting.len() == 1 && waiting[0].starts_with("2 of 2 guests of "),
        "{waiting:?}"
    );
    assert_eq!(seats(&fixture.host).len(), 2);
}

#[tokio::test]
async fn flake_that_is_built_anew_gets_other_guests() {
    let flake = "/fleet#agent";
    let guests = vec![WarmGuests {
        source: ClosureSource::Flake(Installable::parse(flake, "x").expect("valid")),
        size: 1,
    }];
    let fixture = fixture_with(FakeHost::new(), warm_config(guests)).await;
    fixture
        .until("the missing build is reported", async || {
            let check = finding(&fixture).await;
            check.verdict == Verdict::Warning && check.finding.contains("is not built")
        })
        .await;
    let build = async || {
        let request = BuildRequest::default();
        fixture.host.builds.notify_one();
        let accepted = fixture.engine.build(request, "test", Trust::Host).await;
        let built = fixture.ended(accepted.expect("accepted")).await;
        assert_eq!(built.failure, None);
    };
    build().await;
    filled(&fixture, 1).await;
    let former = seats(&fixture.host);
    let other = "/nix/store/00000000000000000000000000000000-other";
    let other = StorePath::parse(other).expect("valid");
    fixture.host.world().next_build = Some(other.clone());
    build().await;
    fixture
        .until("it is replaced", async || {
            let now = seats(&fixture.host);
            now.len() == 1 && now != former
        })
        .await;
    filled(&fixture, 1).await;
    let request = CreateRequest {
        closure: None,
        flake: Some(flake.to_owned()),
        ..Fixture::request("web")
    };
    let accepted = fixture.engine.create(request, "test", Trust::Host).await;
    assert_eq!(
        fixture.ended(accepted.expect("accepted")).await.failure,
        None
    );
    let guest = fixture.engine.guest(&name("web")).await.expect("there");
    assert_eq!(guest.closure, Some(other));
    assert!(fixture.host.world().host_names.contains(&name("web")));
}

#[tokio::test]
async fn warm_guests_end_before_a_guest_is_refused_for_lack_of_memory() {
    let fixture = pooled(1).await;
    let host = fixture.host.clone();
    // The warm guest takes what is missing.
    host.world().memory = Some(memory(40));
    let freed = tokio::spawn(async move {
        while !seats(&host).is_empty() {
            tokio::task::yield_now().await;
        }
        host.world().memory = Some(memory(60));
    });
    let request = CreateRequest {
        memory: Some(MemorySize::from_bytes(1 << 29)),
        ..Fixture::request("web")
    };
    let created = fixture.engine.create(request, "test", Trust::Host).await;
    freed.await.expect("no panic");
    let accepted = created.expect("not refused");
    assert_eq!(fixture.ended(accepted).await.failure, None);
    assert_eq!(seats(&fixture.host), []);
    assert_eq!(fixture.create("again").await.failure, None);
    // The pool waits a while.
    let check = finding(&fixture).await;
    assert!(check.finding.starts_with("0 of 1 guests"), "{check:?}");
}

#[tokio::test]
async fn warm_guests_end_before_idle_guests_are_paused() {
    let fixture = pooled(2).await;
    assert_eq!(fixture.create("web").await.failure, None);
    filled(&fixture, 2).await;
    fixture.host.world().memory = Some(memory(120));
    fixture.engine.relieve_memory().await.expect("read");
    assert_eq!(seats(&fixture.host), []);
    assert!(!fixture.host.world().frozen.contains(&name("web")));
}

#[tokio::test]
async fn warm_guests_give_up_their_slots_and_their_space() {
    let range: SlotRange = "10.0.0.0/29".parse().expect("valid");
    let slots = range.slots().count();
    let config = EngineConfig {
        range,
        ..warm_config(of_closure(1))
    };
    let directory = tempfile::tempdir().expect("tempdir");
    let host = FakeHost::new();
    let store = innkeeper_store::Store::open(&directory.path().join("db"), range).expect("opens");
    let engine = Engine::new(config, store, host.facilities(), None);
    engine.restore().await.expect("restored");
    let keeping = engine.clone();
    tokio::spawn(async move { keeping.keep_seats().await });
    let fixture = Fixture {
        _directory: directory,
        host,
        engine,
    };
    filled(&fixture, 1).await;
    for number in 1..=slots {
        let request = CreateRequest {
            // Not one that would take the seat.
            memory: Some(MemorySize::from_bytes(1 << 29)),
            ..Fixture::request(&format!("web-{number}"))
        };
        let accepted = fixture.engine.create(request, "test", Trust::Host).await;
        let operation = fixture.ended(accepted.expect("accepted")).await;
        assert_eq!(operation.failure, None, "{number} of {slots}");
    }
    assert_eq!(seats(&fixture.host), []);

    let fixture = pooled(1).await;
    fixture.host.world().room = Some(1);
    assert_eq!(fixture.create("web").await.failure, None);
    assert_eq!(seats(&fixture.host), []);
}

/// Watchdogs of a service manager do not know that its services were suspended.
#[tokio::test]
async fn warm_guests_run_for_a_moment_at_intervals() {
    let mut config = warm_config(of_closure(1));
    config.warm.exercise_interval = Duration::from_millis(10);
    let fixture = fixture_with(FakeHost::new(), config).await;
    filled(&fixture, 1).await;
    let seat = seats(&fixture.host)[0].clone();
    let exercised = |times: usize| {
        let mut done = calls(&fixture.host, 0, seat.as_str());
        done.retain(|call| ["unit.thaw", "unit.freeze"].contains(&call.as_str()));
        let thawed = done.iter().filter(|call| *call == "unit.thaw").count();
        thawed >= times
    };
    fixture
        .until("it runs again and again", async || exercised(2))
        .await;
    // A create takes it also while it runs.
    fixture
        .until("it runs", async || {
            !fixture.host.world().frozen.contains(&seat)
        })
        .await;
    assert_eq!(fixture.create("web").await.failure, None);
    let guest = fixture.engine.guest(&name("web")).await.expect("there");
    assert_eq!(GuestName::of_seat(guest.slot), seat);
    assert!(!fixture.host.world().frozen.contains(&name("web")));
    fixture
        .until("the moment is over", async || {
            seats(&fixture.host).len() == 1
        })
        .await;
    assert!(!fixture.host.world().frozen.contains(&name("web")));
}

/// Also while its system comes up, which may take minutes.
#[tokio::test]
async fn guest_that_boots_gives_up_its_slot() {
    let range: SlotRange = "10.0.0.0/29".parse().expect("valid");
    let slots = range.slots().count();
    let config = EngineConfig {
        range,
        ..warm_config(of_closure(1))
    };
    let directory = tempfile::tempdir().expect("tempdir");
    let host = FakeHost::new();
    // Its service manager never responds.
    host.world().programs.insert("sw/bin/systemctl");
    let store = innkeeper_store::Store::open(&directory.path().join("db"), range).expect("opens");
    let engine = Engine::new(config, store, host.facilities(), None);
    engine.restore().await.expect("restored");
    let keeping = engine.clone();
    tokio::spawn(async move { keeping.keep_seats().await });
    let fixture = Fixture {
        _directory: directory,
        host,
        engine,
    };
    fixture
        .until("it boots", async || {
            let world = fixture.host.world();
            world
                .units
                .values()
                .any(|phase| *phase == UnitPhase::Running)
        })
        .await;
    for number in 1..=slots {
        let created = fixture.create(&format!("web-{number}")).await;
        assert_eq!(created.failure, None, "{number} of {slots}");
    }
    assert_eq!(seats(&fixture.host), []);
    let recorded = fixture.engine.store().seats().await.expect("read");
    assert_eq!(recorded, []);
}

#[tokio::test]
async fn busy_host_boots_none() {
    let host = FakeHost::new();
    host.world().waiting_percent = 51.0;
    let fixture = fixture_with(host, warm_config(of_closure(1))).await;
    fixture
        .until("the reason is reported", async || {
            let check = finding(&fixture).await;
            check.verdict == Verdict::Ok && check.finding.contains("the host is busy")
        })
        .await;
    assert!(fixture.host.world().is_empty());
}

#[tokio::test]
async fn host_without_a_freezer_boots_one_and_no_more() {
    let host = FakeHost::new();
    host.world().without_freezer = true;
    let fixture = fixture_with(host, warm_config(of_closure(1))).await;
    fixture
        .until("the reason is reported", async || {
            let check = finding(&fixture).await;
            check.verdict == Verdict::Warning && check.remedy.is_some()
        })
        .await;
    assert!(fixture.host.world().is_empty());
}

#[tokio::test]
async fn warm_guests_of_an_earlier_daemon_are_removed_and_never_taken() {
    let fixture = pooled(1).await;
    let former = seats(&fixture.host);
    fixture.engine.stop_working().await;
    let directory = fixture._directory.path();
    let engine = start(&fixture.host, directory, config()).await;
    let next = Fixture {
        _directory: tempfile::tempdir().expect("unused"),
        host: fixture.host.clone(),
        engine,
    };
    assert_eq!(next.create("web").await.failure, None);
    let slot = next.engine.guest(&name("web")).await.expect("there").slot;
    assert!(!former.contains(&GuestName::of_seat(slot)));
    next.until("it is gone", async || {
        next.engine.store().seats().await.expect("read").is_empty()
    })
    .await;
    next.destroy("web").await;
    assert!(next.host.world().is_empty());
}

#[tokio::test]
async fn guests_do_not_continue_without_the_firewall() {
    let fixture = pooled(1).await;
    let seat = seats(&fixture.host)[0].clone();
    fixture.host.fail("firewall.ensure", u32::MAX);
    let watcher = fixture.engine.clone();
    tokio::spawn(async move { watcher.watch(Duration::from_millis(10)).await });
    fixture
        .until("the loss is found", async || {
            fixture.host.world().failures["firewall.ensure"].times < u32::MAX
        })
        .await;
    let refused = fixture.create("web").await.failure.expect("fails");
    assert_eq!(refused.message, "firewall.ensure fails: injected");
    assert_eq!(fixture.state("web").await, None);
    let world = fixture.host.world();
    assert_eq!(world.units.get(&seat), None::<&UnitPhase>);
    assert!(!world.calls.contains(&"unit.thaw web".to_owned()));
}
