//! Guests that rest by the daemon's own decision, and wakes on demand.

use std::net::Ipv4Addr;
use std::time::Duration;

use innkeeper_engine::{EngineConfig, KindRest, RestConfig};
use innkeeper_facilities::fake::FakeHost;
use innkeeper_model::api::Verdict;
use innkeeper_model::{Code, Explain, GuestState, IdlePolicy, Level, OperationState, Verb};
use innkeeper_store::EventFilter;

use crate::fixture::{Fixture, config, engine_with, name};

/// The address of the guest in the first slot.
const WEB: Ipv4Addr = Ipv4Addr::new(10, 100, 0, 3);

/// Returns an engine that lets agents rest at once, with its measurements running, and an agent `web`.
async fn resting(idle: IdlePolicy, pause_after: Duration, sleep_after: Duration) -> Fixture {
    let directory = tempfile::tempdir().expect("tempdir");
    let host = FakeHost::new();
    let agents = KindRest {
        idle,
        pause_after,
        sleep_after,
    };
    let rest = RestConfig {
        agents,
        ..RestConfig::default()
    };
    let engine = engine_with(&host, directory.path(), EngineConfig { rest, ..config() });
    let fixture = Fixture {
        _directory: directory,
        host,
        engine,
    };
    {
        let mut world = fixture.host.world();
        world.cpu_time.insert(name("web"), Duration::ZERO);
    }
    fixture
}

impl Fixture {
    async fn created(self) -> Self {
        self.create("web").await;
        for task in [true, false] {
            let engine = self.engine.clone();
            tokio::spawn(async move {
                match task {
                    true => engine.measure().await,
                    false => engine.follow_packets().await,
                }
            });
        }
        self
    }

    async fn until_state(&self, state: GuestState) {
        let is_there = async || self.state("web").await == Some(state);
        self.until(&format!("it is {state}"), is_there).await;
    }

    /// Lets a packet of 200 bytes reach the guest, with a response.
    fn keep_alive(&self) {
        {
            let mut world = self.host.world();
            let traffic = world.traffic.entry(WEB).or_default();
            for count in [&mut traffic.to, &mut traffic.from] {
                count.packets += 1;
                count.bytes += 200;
            }
        }
        self.host.reach(WEB);
    }

    async fn level_and_events(&self) -> (Level, usize) {
        let guest = self.engine.guest(&name("web")).await.expect("exists");
        let filter = EventFilter::default();
        let events = self.engine.store().events(filter).await.expect("events");
        (guest.level, events.len())
    }
}

const SOON: Duration = Duration::from_millis(1);
const NEVER: Duration = Duration::ZERO;

/// The events of keep-alives would displace all others within a day.
#[tokio::test]
async fn keep_alives_are_answered_and_leave_no_record() {
    let fixture = resting(IdlePolicy::Pause, SOON, NEVER)
        .await
        .created()
        .await;
    fixture.until_state(GuestState::Paused).await;
    let before = fixture.level_and_events().await;
    assert_eq!(before.0, Level::Paused);
    for _ in 0..2 {
        fixture.keep_alive();
        fixture.until_state(GuestState::Running).await;
        fixture.until_state(GuestState::Paused).await;
        assert!(fixture.host.world().watched.contains(&WEB));
    }
    assert_eq!(fixture.level_and_events().await, before);
    // A connection is a use, which is recorded.
    {
        let traffic = &mut fixture.host.world().traffic;
        traffic.entry(WEB).or_default().opened += 1;
    }
    fixture.keep_alive();
    let is_awake = async || fixture.level_and_events().await.0 == Level::Awake;
    fixture.until("the wake is recorded", is_awake).await;
}

/// The use of the first request is recorded after the second pause.
#[tokio::test]
async fn pause_by_a_user_right_after_a_request_lasts() {
    let hour = Duration::from_secs(3600);
    let fixture = resting(IdlePolicy::Pause, hour, NEVER)
        .await
        .created()
        .await;
    let (engine, web) = (&fixture.engine, name("web"));
    let paused = engine.pause(&web, "test").await.expect("accepted");
    fixture.ended(paused).await;
    {
        let traffic = &mut fixture.host.world().traffic;
        traffic.entry(WEB).or_default().opened += 1;
    }
    fixture.keep_alive();
    fixture.until_state(GuestState::Running).await;
    let woken = engine.wake(&web, "test").await.expect("accepted");
    fixture.ended(woken).await;
    let paused = engine.pause(&web, "test").await.expect("accepted");
    fixture.ended(paused).await;
    for _ in 0..30 {
        assert_eq!(fixture.state("web").await, Some(GuestState::Paused));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The end of its connection is no use either.
    fixture.keep_alive();
    fixture.until_state(GuestState::Running).await;
    fixture.until_state(GuestState::Paused).await;
    assert_eq!(fixture.level_and_events().await.0, Level::Paused);
}

/// The reconciliation and doctor leave a guest that responds to a packet, and a new daemon pauses it again.
#[tokio::test]
async fn response_to_a_packet_is_not_interrupted() {
    let fixture = resting(IdlePolicy::Pause, SOON, NEVER)
        .await
        .created()
        .await;
    fixture.until_state(GuestState::Paused).await;
    // Data without a response.
    {
        let traffic = &mut fixture.host.world().traffic;
        traffic.entry(WEB).or_default().to.bytes += 200;
    }
    fixture.host.reach(WEB);
    fixture.until_state(GuestState::Running).await;
    let watcher = fixture.engine.clone();
    let interval = Duration::from_millis(50);
    let watching = tokio::spawn(async move { watcher.watch(interval).await });
    for _ in 0..20 {
        tokio::time::sleep(interval).await;
        assert_eq!(fixture.state("web").await, Some(GuestState::Running));
    }
    let checks = fixture.engine.doctor().await.expect("checked").checks;
    let check = checks.iter().find(|check| check.subject == "guest web");
    assert_eq!(
        check.map(|check| check.verdict),
        Some(Verdict::Ok),
        "{checks:#?}"
    );
    watching.abort();
    {
        let traffic = &mut fixture.host.world().traffic;
        traffic.entry(WEB).or_default().from.bytes += 200;
    }
    fixture.until_state(GuestState::Paused).await;
}

#[tokio::test]
async fn session_keeps_a_guest_awake() {
    let fixture = resting(IdlePolicy::Sleep, SOON, 2 * SOON).await;
    fixture.host.world().with_ssh.insert(name("web"));
    let fixture = fixture.created().await;
    let is_seen = async || {
        let report = fixture.engine.usage().await.expect("a report");
        let last = report.first().and_then(|usage| usage.last_use.clone());
        last.as_deref() == Some("an open SSH session")
    };
    fixture.until("the session is seen", is_seen).await;
    assert_eq!(fixture.level_and_events().await.0, Level::Awake);
    let web = fixture.engine.guest(&name("web")).await.expect("exists");
    let exemption = fixture.engine.exemption(&web).await.expect("queried");
    assert_eq!(exemption.as_deref(), Some("an open SSH session"));
    let session = fixture.engine.open_session(&name("web"));
    fixture.host.world().with_ssh.clear();
    // Opened after the decision: the pause is refused when it would freeze.
    assert!(
        !fixture
            .engine
            .rest(&web, Level::Paused)
            .await
            .expect("tried")
    );
    assert_eq!(fixture.state("web").await, Some(GuestState::Running));
    drop(session);
    fixture.until_state(GuestState::Asleep).await;
    let last = fixture.engine.store().last_operation_on(&name("web")).await;
    let last = last.expect("read").expect("one");
    assert_eq!((last.verb, &*last.actor), (Verb::Sleep, "innkeeperd"));
}

#[tokio::test]
async fn guest_without_a_policy_stays_awake() {
    let fixture = resting(IdlePolicy::AlwaysOn, SOON, SOON)
        .await
        .created()
        .await;
    let web = fixture.engine.guest(&name("web")).await.expect("exists");
    let exemption = fixture.engine.exemption(&web).await.expect("queried");
    assert_eq!(exemption.as_deref(), Some("its idle policy is always-on"));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(fixture.level_and_events().await.0, Level::Awake);
}

/// A hundred demands wake a guest once, and a failed wake is not repeated.
#[tokio::test]
async fn demands_share_a_wake_and_its_failure() {
    let fixture = crate::fixture::fixture();
    fixture.create("web").await;
    let web = name("web");
    fixture.engine.wake_on_demand(&web).await.expect("awake");
    let sleep = async || {
        let asleep = fixture.engine.sleep(&web, "test").await;
        let operation = fixture.ended(asleep.expect("accepted")).await;
        assert_eq!(operation.state, OperationState::Done);
    };
    sleep().await;
    let starts = fixture.host.world().starts;
    let demands = || (0..100).map(|_| fixture.engine.wake_on_demand(&web));
    for woken in futures_util::future::join_all(demands()).await {
        woken.expect("woken");
    }
    assert_eq!(fixture.host.world().starts, starts + 1);

    sleep().await;
    fixture.host.fail("unit.ensure", 1);
    for woken in futures_util::future::join_all(demands()).await {
        assert_eq!(woken.expect_err("fails").code(), Code::RootfsFailed);
    }
    let refused = fixture.engine.wake_on_demand(&web).await;
    let remedy = refused.expect_err("too soon").remedy().expect("one");
    assert!(remedy.contains("agent wake web"), "{remedy}");
    // A user's wake succeeds, and ends the refusal.
    let woken = fixture.engine.wake(&web, "test").await;
    let operation = fixture.ended(woken.expect("accepted")).await;
    assert_eq!(operation.state, OperationState::Done);
    sleep().await;
    fixture.engine.wake_on_demand(&web).await.expect("woken");
    let stopped = fixture.engine.stop(&web, "test").await;
    fixture.ended(stopped.expect("accepted")).await;
    let refused = fixture.engine.wake_on_demand(&web).await;
    assert_eq!(refused.expect_err("stopped").code(), Code::GuestNotRunning);
}

#[tokio::test]
async fn own_policy_and_keepalive_precede_the_configuration() {
    let fixture = resting(IdlePolicy::AlwaysOn, SOON, NEVER)
        .await
        .created()
        .await;
    let web = name("web");
    let engine = &fixture.engine;
    let report = async || engine.rest_report(&web).await.expect("a report");
    let before = report().await;
    assert_eq!(
        (before.idle_policy, before.is_own_policy),
        (IdlePolicy::AlwaysOn, false)
    );
    assert_eq!(
        before.kept_awake_by.as_deref(),
        Some("its idle policy is always-on")
    );

    let hour = Duration::from_secs(3600);
    engine.keep_awake(&web, hour, "test").await.expect("kept");
    let own = Some(IdlePolicy::Pause);
    engine.set_idle_policy(&web, own).await.expect("set");
    let kept = async || report().await.last_use.as_deref() == Some("a keepalive");
    fixture.until("the keepalive is a use", kept).await;
    let during = report().await;
    assert_eq!(
        (during.idle_policy, during.is_own_policy),
        (IdlePolicy::Pause, true)
    );
    assert_eq!(during.kept_awake_by.as_deref(), Some("a keepalive"));
    assert_eq!(
        (during.pause_in_seconds, during.sleep_in_seconds),
        (None, None)
    );
    assert!(during.keepalive_seconds.is_some_and(|left| left > 3500));
    let too_long = engine.keep_awake(&web, 25 * hour, "test").await;
    assert_eq!(too_long.expect_err("a day").code(), Code::InvalidRequest);

    // The next daemon knows of it.
    let next = engine_with(&fixture.host, fixture._directory.path(), config());
    next.restore().await.expect("restored");
    assert!(
        next.kept_awake(&web)
            .is_some_and(|left| left > 58 * hour / 60)
    );

    engine.keep_awake(&web, NEVER, "test").await.expect("ended");
    fixture.until_state(GuestState::Paused).await;
    // It wakes a guest that rests.
    engine.keep_awake(&web, hour, "test").await.expect("kept");
    assert_eq!(fixture.state("web").await, Some(GuestState::Running));
    assert_eq!(fixture.level_and_events().await.0, Level::Awake);
}
