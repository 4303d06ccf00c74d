//! The door pool: guests that wait at their doors until a new guest takes their place.

use std::path::Path;

use innkeeper_engine::{Engine, EngineConfig};
use innkeeper_facilities::fake::FakeHost;
use innkeeper_model::api::{CreateRequest, GcRequest, Verdict};
use innkeeper_model::{GuestName, GuestState, Trust};

use crate::fixture::{Fixture, config, engine_with, name};

/// An engine that keeps `seats` ready, and its host.
async fn pooled(seats: usize) -> Fixture {
    let directory = tempfile::tempdir().expect("tempdir");
    let host = FakeHost::new();
    let engine = start(&host, directory.path(), seats).await;
    let fixture = Fixture {
        _directory: directory,
        host,
        engine,
    };
    filled(&fixture, seats).await;
    fixture
}

async fn start(host: &FakeHost, directory: &Path, seats: usize) -> Engine {
    let config = EngineConfig { seats, ..config() };
    let engine = engine_with(host, directory, config);
    engine.restore().await.expect("restored");
    let keeping = engine.clone();
    tokio::spawn(async move { keeping.keep_seats().await });
    engine
}

async fn filled(fixture: &Fixture, seats: usize) {
    fixture
        .until("the seats are ready", async || {
            let recorded = fixture.engine.store().seats().await;
            let ready = recorded
                .expect("read")
                .into_iter()
                .filter(|seat| seat.ready);
            ready.count() == seats
        })
        .await;
}

/// The calls since `from` that concern this guest.
fn calls(host: &FakeHost, from: usize, guest: &str) -> Vec<String> {
    let world = host.world();
    let calls = world.calls.iter().skip(from);
    let of_guest = calls.filter(|call| call.split(' ').nth(1) == Some(guest));
    of_guest.cloned().collect()
}

fn seats(host: &FakeHost) -> Vec<GuestName> {
    let world = host.world();
    world
        .units
        .keys()
        .filter(|name| name.is_seat())
        .cloned()
        .collect()
}

#[tokio::test]
async fn create_takes_a_seat_and_another_one_is_made() {
    let fixture = pooled(1).await;
    let first = seats(&fixture.host);
    let from = fixture.host.world().calls.len();
    assert_eq!(fixture.create("web").await.failure, None);
    assert_eq!(fixture.state("web").await, Some(GuestState::Running));
    let slot = fixture
        .engine
        .guest(&name("web"))
        .await
        .expect("there")
        .slot;
    assert_eq!(first, [GuestName::of_seat(slot)]);
    let mut done = calls(&fixture.host, from, "web");
    for once in [
        "unit.take_seat web",
        "unit.release web",
        "secrets.ensure web",
    ] {
        assert_eq!(
            done.iter().filter(|call| *call == once).count(),
            1,
            "{done:?}"
        );
    }
    // The tree and the network were made before the guest had a name.
    done.retain(|call| ["rootfs.ensure web", "network.ensure web"].contains(&call.as_str()));
    assert_eq!(done, [""; 0]);
    filled(&fixture, 1).await;
    let second = seats(&fixture.host);
    assert_ne!(first, second, "a slot is not used again at once");
    assert_eq!(fixture.destroy("web").await.failure, None);
    let world = fixture.host.world();
    assert!(
        world
            .trees
            .keys()
            .chain(world.units.keys())
            .chain(&world.links)
            .all(GuestName::is_seat)
    );
}

#[tokio::test]
async fn guests_that_do_not_fit_are_started_without_a_seat() {
    let fixture = pooled(1).await;
    let request = CreateRequest {
        nesting: true,
        ..Fixture::request("nests")
    };
    let accepted = fixture.engine.create(request, "test", Trust::Host).await;
    let operation = fixture.ended(accepted.expect("accepted")).await;
    assert_eq!(operation.failure, None);
    assert!(!calls(&fixture.host, 0, "nests").contains(&"unit.take_seat nests".to_owned()));
    assert_eq!(seats(&fixture.host).len(), 1);
}

#[tokio::test]
async fn create_at_a_seat_leaves_nothing_when_a_step_fails() {
    for step in [
        "rootfs.rename",
        "network.rename",
        "unit.take_seat",
        "closure.ensure",
        "secrets.ensure",
        "unit.ensure",
        "unit.release",
    ] {
        let fixture = pooled(1).await;
        fixture.host.fail(step, 1);
        let failure = fixture.create("web").await.failure;
        let failure = failure.unwrap_or_else(|| panic!("{step} did not fail"));
        assert!(failure.message.contains(step), "{step}: {failure:?}");
        assert_eq!(fixture.state("web").await, None, "{step}");
        let left = calls(&fixture.host, 0, "web");
        let world = fixture.host.world();
        let mut names = world
            .trees
            .keys()
            .chain(world.units.keys())
            .chain(&world.links);
        assert!(names.all(GuestName::is_seat), "{step}: {left:?}");
    }
}

#[tokio::test]
async fn seat_that_has_ended_does_not_fail_a_create() {
    let fixture = pooled(1).await;
    fixture.host.end_quietly(&seats(&fixture.host)[0], 137);
    assert_eq!(fixture.create("web").await.failure, None);
    assert_eq!(fixture.state("web").await, Some(GuestState::Running));
}

#[tokio::test]
async fn seats_of_an_earlier_daemon_are_removed_and_never_taken() {
    let fixture = pooled(2).await;
    let former = seats(&fixture.host);
    fixture.engine.stop_working().await;
    // The next daemon has no pool.
    let directory = fixture._directory.path();
    let engine = start(&fixture.host, directory, 0).await;
    let next = Fixture {
        _directory: tempfile::tempdir().expect("unused"),
        host: fixture.host.clone(),
        engine,
    };
    assert_eq!(next.create("web").await.failure, None);
    let slot = next.engine.guest(&name("web")).await.expect("there").slot;
    assert!(!former.contains(&GuestName::of_seat(slot)));
    next.until("the seats are gone", async || {
        let recorded = next.engine.store().seats().await.expect("read");
        recorded.is_empty() && seats(&next.host).is_empty()
    })
    .await;
    next.destroy("web").await;
    assert!(next.host.world().is_empty());
}

#[tokio::test]
async fn seat_that_cannot_be_made_leaves_nothing() {
    for step in ["rootfs.ensure", "unit.ensure", "network.ensure"] {
        let directory = tempfile::tempdir().expect("tempdir");
        let host = FakeHost::new();
        host.fail(step, 1);
        let engine = start(&host, directory.path(), 1).await;
        let fixture = Fixture {
            _directory: directory,
            host,
            engine,
        };
        let finding = async || {
            let report = fixture.engine.doctor().await.expect("a report");
            let mut checks = report.checks.into_iter();
            checks
                .find(|check| check.subject == "door pool")
                .expect("a check")
        };
        fixture
            .until("the failure is reported", async || {
                let check = finding().await;
                check.verdict == Verdict::Warning && check.finding.contains(step)
            })
            .await;
        assert!(fixture.host.world().is_empty(), "{step}: something is left");
        assert!(
            fixture
                .engine
                .store()
                .seats()
                .await
                .expect("read")
                .is_empty()
        );
        // Without a seat, a guest is started as ever; after that, the next attempt succeeds.
        assert_eq!(fixture.create("web").await.failure, None);
    }
}

#[tokio::test]
async fn seats_are_no_orphans_and_no_guests() {
    let fixture = pooled(2).await;
    let report = fixture
        .engine
        .gc(GcRequest::default())
        .await
        .expect("a report");
    assert_eq!(report.orphans, []);
    assert_eq!(fixture.engine.list().await.expect("listed"), []);
    assert_eq!(seats(&fixture.host).len(), 2);
    let slots = fixture.engine.slots().await.expect("listed");
    assert_eq!(slots.in_use(), 2);
    assert!(
        slots
            .taken
            .iter()
            .all(|taken| taken.owner.starts_with("0-door-"))
    );
    let users = CreateRequest {
        name: Some(seats(&fixture.host)[0].clone()),
        ..Fixture::request("web")
    };
    let refused = fixture.engine.create(users, "test", Trust::Host).await;
    assert!(
        refused
            .expect_err("reserved")
            .to_string()
            .contains("reserved")
    );
}

#[tokio::test]
async fn changed_host_gets_other_seats() {
    let fixture = pooled(1).await;
    let former = seats(&fixture.host);
    let watching = fixture.engine.clone();
    tokio::spawn(async move { watching.watch(std::time::Duration::from_secs(3600)).await });
    // The report of a daemon's start is no change.
    for reported in 1..=2 {
        assert_eq!(seats(&fixture.host), former, "before report {reported}");
        fixture.host.facts.notify_one();
        fixture
            .until("the report is noticed", async || {
                let calls = fixture.host.world().calls.clone();
                calls
                    .iter()
                    .filter(|call| *call == "firewall.ensure")
                    .count()
                    > reported
            })
            .await;
    }
    fixture
        .until("the seat is another one", async || {
            let now = seats(&fixture.host);
            now.len() == 1 && now != former
        })
        .await;
    filled(&fixture, 1).await;
}

#[tokio::test]
async fn guests_at_seats_do_not_start_without_the_firewall() {
    let fixture = pooled(1).await;
    fixture.host.fail("firewall.ensure", u32::MAX);
    let watcher = fixture.engine.clone();
    tokio::spawn(async move { watcher.watch(std::time::Duration::from_millis(10)).await });
    fixture
        .until("the loss is found", async || {
            fixture.host.world().failures["firewall.ensure"].times < u32::MAX
        })
        .await;
    let refused = fixture.create("meanwhile").await.failure.expect("fails");
    assert_eq!(refused.message, "firewall.ensure fails: injected");
    assert_eq!(fixture.state("meanwhile").await, None);
    let done = calls(&fixture.host, 0, "meanwhile");
    assert!(
        done.contains(&"unit.take_seat meanwhile".to_owned()),
        "{done:?}"
    );
    assert!(
        !done.contains(&"unit.release meanwhile".to_owned()),
        "{done:?}"
    );
}

#[tokio::test]
async fn guest_with_a_tree_of_its_own_is_started_without_the_seat() {
    let fixture = pooled(1).await;
    let seat = seats(&fixture.host)[0].clone();
    // An orphan of the guest's name.
    let tree = "of somebody".to_owned();
    fixture.host.world().trees.insert(name("web"), tree.clone());
    assert_eq!(fixture.create("web").await.failure, None);
    let world = fixture.host.world();
    assert_eq!(world.trees.get(&name("web")), Some(&tree));
    assert!(!world.units.contains_key(&seat) && !world.links.contains(&seat));
    let taken = world.calls.contains(&"unit.take_seat web".to_owned());
    assert!(!taken, "a unit with another tree");
}

#[tokio::test]
async fn no_seat_is_made_while_remains_of_another_one_are_left() {
    let directory = tempfile::tempdir().expect("tempdir");
    let host = FakeHost::new();
    host.fail("network.ensure", 1);
    host.fail("unit.remove", 3);
    let engine = start(&host, directory.path(), 1).await;
    let fixture = Fixture {
        _directory: directory,
        host,
        engine,
    };
    let watcher = fixture.engine.clone();
    tokio::spawn(async move { watcher.watch(std::time::Duration::from_secs(3600)).await });
    let recorded = async || fixture.engine.store().seats().await.expect("read").len();
    fixture
        .until("its removal has failed", async || {
            fixture.host.world().failures["unit.remove"].times < 3
        })
        .await;
    fixture
        .until("another one is ready", async || {
            assert!(recorded().await <= 1, "a seat beside the remains");
            fixture.host.facts.notify_one();
            let seats = fixture.engine.store().seats().await.expect("read");
            seats.len() == 1 && seats[0].ready
        })
        .await;
}

#[tokio::test]
async fn full_disk_refuses_a_create_in_spite_of_a_seat() {
    let fixture = pooled(1).await;
    fixture.host.world().room = Some(1);
    assert!(fixture.create("web").await.failure.is_some());
    assert_eq!(seats(&fixture.host).len(), 1);
}
