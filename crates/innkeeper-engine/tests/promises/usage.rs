//! The use of guests.

use std::net::Ipv4Addr;
use std::time::Duration;

use innkeeper_facilities::{GuestTraffic, PacketCount};
use innkeeper_model::{GuestState, GuestUsage, Level, OperationState};

use crate::fixture::{Fixture, fixture, name};

/// The address of the guest in the first slot.
const WEB: Ipv4Addr = Ipv4Addr::new(10, 100, 0, 3);

impl Fixture {
    /// Measures all guests and returns the use of web.
    async fn measured(&self) -> GuestUsage {
        self.engine.measure_once().await.expect("measured");
        let report = self.engine.usage().await.expect("a report");
        let mut guests = report.into_iter();
        guests.find(|usage| usage.name == name("web")).expect("web")
    }
}

#[tokio::test]
async fn report_has_running_guests_with_their_last_use() {
    let fixture = fixture();
    fixture.create("web").await;
    fixture.create("shop").await;
    let stopped = fixture.engine.stop(&name("shop"), "test").await;
    fixture.ended(stopped.expect("accepted")).await;
    fixture
        .host
        .world()
        .cpu_time
        .insert(name("web"), Duration::ZERO);
    let first = fixture.measured().await;
    assert_eq!(first.cpu_percent, None);
    assert_eq!(fixture.engine.usage().await.expect("a report").len(), 1);

    let traffic = GuestTraffic {
        to: PacketCount {
            packets: 1,
            bytes: 60,
        },
        opened: 1,
        ..GuestTraffic::default()
    };
    fixture.host.world().traffic.insert(WEB, traffic);
    let asked = fixture.measured().await;
    assert_eq!(asked.last_use.as_deref(), Some("a new connection to it"));
    assert_eq!(asked.cpu_percent, Some(0.0));
    assert!(asked.received_per_second > 0.0);

    let session = fixture.engine.open_session(&name("web"));
    let used = fixture.measured().await;
    assert_eq!(
        (used.sessions, used.last_use.as_deref()),
        (1, Some("an open session (exec)"))
    );
    drop(session);
    let left = fixture.measured().await;
    assert_eq!((left.sessions, left.last_use), (0, used.last_use));
}

#[tokio::test]
async fn use_between_two_measurements_counts() {
    let fixture = fixture();
    fixture.create("web").await;
    let cpu_time = (name("web"), Duration::ZERO);
    fixture.host.world().cpu_time.extend([cpu_time]);
    // The cgroup alone shows that it runs: the processes of guests are not looked at.
    let units = std::mem::take(&mut fixture.host.world().units);
    fixture.measured().await;
    fixture.host.world().units = units;
    let last_use = async || {
        let report = fixture.engine.usage().await.expect("a report");
        report.first().and_then(|usage| usage.last_use.clone())
    };
    drop(fixture.engine.open_session(&name("web")));
    assert_eq!(last_use().await.as_deref(), Some("an open session (exec)"));
    let request = innkeeper_model::api::SnapshotRequest::default();
    let taken = fixture.engine.snapshot(&name("web"), request, "test").await;
    fixture.ended(taken.expect("accepted").accepted).await;
    let is_used = async || last_use().await.as_deref() == Some("an operation in progress");
    fixture.until("the snapshot counts", is_used).await;
}

/// A failed measurement keeps the last one: no guest becomes idle or forgotten by it.
#[tokio::test]
async fn failed_measurement_changes_nothing() {
    let fixture = fixture();
    fixture.create("web").await;
    let before = fixture.measured().await;
    fixture.host.fail("traffic.traffic", 1);
    fixture.engine.measure_once().await.expect_err("fails");
    let report = fixture.engine.usage().await.expect("a report");
    assert_eq!(
        report.first().map(|usage| &usage.last_use),
        Some(&before.last_use)
    );
}

/// A sleeping guest is listed without a use; one that was just used is not put to sleep.
#[tokio::test]
async fn report_has_sleeping_guests_and_reasons() {
    let fixture = fixture();
    for guest in ["web", "docs"] {
        fixture.create(guest).await;
    }
    let asleep = fixture.engine.sleep(&name("docs"), "test").await;
    fixture.ended(asleep.expect("accepted")).await;
    let size = fixture.engine.disk_usage(&name("docs")).await;
    let web = fixture.measured().await;
    assert_eq!((web.level, web.sleep_order), (Level::Awake, None));
    assert_eq!(
        web.sleep_reason,
        "it was used 0 s ago: its start, that of innkeeperd, or a gap in the measurement"
    );
    let report = fixture.engine.usage().await.expect("a report");
    let docs = report.last().expect("two guests");
    assert_eq!(
        (docs.level, docs.state),
        (Level::Asleep, GuestState::Asleep)
    );
    assert_eq!((docs.idle_seconds, &docs.last_use), (None, &None));
    assert_eq!(docs.disk_bytes, size.expect("measured"));
    assert_eq!(docs.sleep_reason, "it is asleep");

    // The next guest of that name has not been measured.
    fixture.destroy("docs").await;
    fixture.create("docs").await;
    fixture.engine.measure_once().await.expect("measured");
    let report = fixture.engine.usage().await.expect("a report");
    let docs = report.iter().find(|usage| usage.name == name("docs"));
    assert_eq!(docs.expect("listed").disk_bytes, None);
}

/// A first packet continues a guest, and is recorded as an operation of the daemon.
#[tokio::test]
async fn first_packet_wakes_a_paused_guest() {
    let fixture = fixture();
    fixture.create("web").await;
    let follower = fixture.engine.clone();
    tokio::spawn(async move { follower.follow_packets().await });
    fixture.host.reach(WEB);
    for _ in 0..2 {
        let paused = fixture.engine.pause(&name("web"), "test").await;
        fixture.ended(paused.expect("accepted")).await;
        assert_eq!(fixture.state("web").await, Some(GuestState::Paused));
        assert!(fixture.host.world().watched.contains(&WEB));
        fixture.host.reach(WEB);
        let is_running = async || fixture.state("web").await == Some(GuestState::Running);
        fixture.until("it runs", is_running).await;
        let is_recorded = async || {
            let running = fixture.engine.store().running_operations().await;
            running.expect("a list").is_empty()
        };
        fixture.until("the wake is recorded", is_recorded).await;
        assert!(!fixture.host.world().frozen.contains(&name("web")));
    }
    let is_recorded = async || fixture.host.world().watched.is_empty();
    fixture.until("it is not watched", is_recorded).await;
}

/// A guest whose packets cannot be watched stays awake.
#[tokio::test]
async fn guest_is_not_paused_without_a_watch() {
    let fixture = fixture();
    fixture.create("web").await;
    fixture.host.fail("packets.watch", 1);
    let paused = fixture.engine.pause(&name("web"), "test").await;
    let operation = fixture.ended(paused.expect("accepted")).await;
    assert_eq!(operation.state, OperationState::Failed);
    let is_running = async || fixture.state("web").await == Some(GuestState::Running);
    fixture.until("it runs", is_running).await;
    assert!(fixture.host.world().frozen.is_empty());
}
