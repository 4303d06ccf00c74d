//! The daemon's own work: guests that exit, changes of the host, the firewall.

use std::time::Duration;

use innkeeper_model::api::Accepted;
use innkeeper_model::{DesiredState, GuestState, UnitPhase, Verb};

use crate::fixture::{fixture, name};

#[tokio::test]
async fn exit_status_decides_about_a_restart() {
    let fixture = fixture();
    let watcher = fixture.engine.clone();
    tokio::spawn(async move { watcher.watch(Duration::from_secs(3600)).await });
    tokio::task::yield_now().await;
    for (name, status) in [("reboots", UnitPhase::REBOOT), ("crashes", 1)] {
        fixture.create(name).await;
        fixture.host.end(&self::name(name), status);
        fixture
            .until("it runs again", async || {
                fixture.host.world().units.get(&self::name(name)) == Some(&UnitPhase::Running)
            })
            .await;
    }
    fixture.create("halts").await;
    fixture.host.end(&name("halts"), 0);
    fixture
        .until("it has stopped", async || {
            fixture.state("halts").await == Some(GuestState::Stopped)
        })
        .await;
    let guest = fixture.engine.guest(&name("halts")).await.expect("there");
    assert_eq!(guest.desired, DesiredState::Stopped);
}

#[tokio::test]
async fn guests_that_end_with_the_host_start_with_the_next_daemon() {
    let fixture = fixture();
    let watcher = fixture.engine.clone();
    tokio::spawn(async move { watcher.watch(Duration::from_secs(3600)).await });
    tokio::task::yield_now().await;
    let names = ["halts", "crashes"];
    for name in names {
        fixture.create(name).await;
    }
    let starts = fixture.host.world().starts;
    fixture.host.world().host_is_stopping = true;
    fixture.host.end(&name("halts"), 0);
    fixture.host.end(&name("crashes"), 137);
    fixture
        .until("both ends are handled", async || {
            fixture.host.world().host_state_queries == names.len()
        })
        .await;
    for name in names {
        let guest = fixture
            .engine
            .guest(&self::name(name))
            .await
            .expect("there");
        assert_eq!((guest.desired, guest.fault), (DesiredState::Running, None));
    }
    assert_eq!(fixture.host.world().starts, starts);
    // The units of a host that was shut down are gone.
    fixture.host.world().units.clear();
    fixture.host.world().host_is_stopping = false;
    fixture.engine.restore().await.expect("restored");
    for name in names {
        fixture
            .until("it runs again", async || {
                fixture.state(name).await == Some(GuestState::Running)
            })
            .await;
    }
}

#[tokio::test]
async fn restore_respects_a_missed_power_off() {
    let fixture = fixture();
    fixture.create("halts").await;
    fixture.create("crashes").await;
    let end = |name: &str, status| {
        let mut world = fixture.host.world();
        world
            .units
            .insert(self::name(name), UnitPhase::Exited(status));
    };
    end("halts", 0);
    end("crashes", 1);
    fixture.engine.restore().await.expect("restored");
    fixture
        .until("it has stopped", async || {
            fixture.state("halts").await == Some(GuestState::Stopped)
        })
        .await;
    fixture
        .until("it runs again", async || {
            fixture.state("crashes").await == Some(GuestState::Running)
        })
        .await;
    let guest = fixture.engine.guest(&name("halts")).await.expect("there");
    assert_eq!(guest.desired, DesiredState::Stopped);
}

#[tokio::test]
async fn host_changes_reach_firewall_and_running_guests() {
    let fixture = fixture();
    fixture.create("runs").await;
    fixture.create("rests").await;
    fixture.host.end_quietly(&name("rests"), 0);
    let watcher = fixture.engine.clone();
    tokio::spawn(async move { watcher.watch(Duration::from_secs(3600)).await });
    // A failed update does not block the guest's other update, or other guests.
    fixture.host.fail("network.follow_uplink", 1);
    for _ in 0..2 {
        fixture.host.world().calls.clear();
        fixture.host.facts.notify_one();
        fixture
            .until("the updates have run", async || {
                let calls = fixture.host.world().calls.clone();
                calls
                    .last()
                    .is_some_and(|call| call == "secrets.follow_host runs")
            })
            .await;
        let calls = fixture.host.world().calls.clone();
        assert_eq!(
            calls,
            [
                "firewall.ensure",
                "network.follow_uplink runs",
                "secrets.follow_host runs"
            ]
        );
    }
}

#[tokio::test]
async fn guests_do_not_start_without_the_firewall() {
    let fixture = fixture();
    fixture.engine.restore().await.expect("restored");
    assert_eq!(fixture.create("before").await.failure, None);
    fixture.host.fail("firewall.ensure", u32::MAX);
    let watcher = fixture.engine.clone();
    tokio::spawn(async move { watcher.watch(Duration::from_millis(10)).await });
    fixture
        .until("the loss is found", async || {
            let world = fixture.host.world();
            world.failures["firewall.ensure"].times < u32::MAX
        })
        .await;

    let refused = fixture.create("meanwhile").await.failure.expect("fails");
    assert_eq!(refused.message, "firewall.ensure fails: injected");
    assert_eq!(fixture.state("meanwhile").await, None);
    assert_eq!(fixture.state("before").await, Some(GuestState::Running));

    fixture.host.fail("firewall.ensure", 0);
    assert_eq!(fixture.create("after").await.failure, None);
    fixture.engine.stop_working().await;
}

/// The operation is recorded as by a request that was canceled before it could start it.
#[tokio::test]
async fn abandoned_operations_are_started() {
    let fixture = fixture();
    fixture.create("web").await;
    let (web, stopped) = (name("web"), DesiredState::Stopped);
    let store = fixture.engine.store();
    let begun = store.begin_change(&web, stopped, Verb::Stop, "test").await;
    let (_, operation) = begun.expect("recorded");
    let watcher = fixture.engine.clone();
    tokio::spawn(async move { watcher.watch(Duration::from_millis(10)).await });
    let accepted = Accepted {
        operation: operation.id,
        guest: Some(web),
    };
    assert_eq!(fixture.ended(accepted).await.failure, None);
    assert_eq!(fixture.state("web").await, Some(GuestState::Stopped));
}
