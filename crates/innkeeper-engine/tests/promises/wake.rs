//! Wakes: their results, and the commands that wait for them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use innkeeper_facilities::fake::ExecResult;
use innkeeper_model::{Code, Failure, GuestState, Level, Verb};

use crate::fixture::{Fixture, fixture, name};

async fn sleep(fixture: &Fixture) {
    let slept = fixture.engine.sleep(&name("web"), "test").await;
    let slept = fixture.ended(slept.expect("accepted")).await;
    assert_eq!(slept.failure, None);
}

#[tokio::test]
async fn commands_wait_for_the_services_of_a_guest_once_after_each_start() {
    let fixture = fixture();
    let web = name("web");
    fixture.create("web").await;
    fixture.host.world().programs.insert("sw/bin/systemctl");
    let queries = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&queries);
    fixture.host.world().exec = Some(Arc::new(move |_, request| {
        assert!(request.command[0].ends_with("/sw/bin/systemctl"));
        let states = ["", "offline\n", "starting\n", "running\n"];
        let state = states[count.fetch_add(1, Ordering::Relaxed)];
        ExecResult {
            stdout: state.to_owned(),
            ..ExecResult::default()
        }
    }));
    for _ in 0..2 {
        fixture.engine.await_services(&web).await;
        assert_eq!(queries.load(Ordering::Relaxed), 3);
    }
    // A guest that does not run is not waited for.
    sleep(&fixture).await;
    fixture.engine.await_services(&web).await;
    assert_eq!(queries.load(Ordering::Relaxed), 3);
    // Whoever wakes it.
    let woken = fixture.engine.wake(&web, "test").await;
    fixture.ended(woken.expect("accepted")).await;
    fixture.engine.await_services(&web).await;
    assert_eq!(queries.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn concurrent_wakes_are_one_operation() {
    let fixture = fixture();
    fixture.create("web").await;
    sleep(&fixture).await;
    let web = name("web");
    let wakes = (0..20).map(|_| fixture.engine.wake(&web, "test"));
    let mut operations = BTreeSet::new();
    for woken in futures_util::future::join_all(wakes).await {
        let accepted = woken.expect("accepted");
        assert_eq!(fixture.ended(accepted.clone()).await.failure, None);
        operations.insert(accepted.operation);
    }
    assert!(operations.len() < 20, "{operations:?}");
    assert_eq!(fixture.host.world().starts, 2);
}

/// A guest that should be awake, and has no processes: as after a reboot of the host, before the daemon starts it.
#[tokio::test]
async fn failed_wake_of_a_guest_that_did_not_rest_is_retried() {
    let fixture = fixture();
    let web = name("web");
    fixture.create("web").await;
    fixture.host.world().units.clear();
    fixture.host.world().links.clear();
    fixture.host.fail("unit.ensure", 1);
    let woken = fixture.engine.wake(&web, "test").await;
    let woken = fixture.ended(woken.expect("accepted")).await;
    assert!(woken.failure.is_some());
    let runs = async || fixture.state("web").await == Some(GuestState::Running);
    fixture.until("it runs", runs).await;
    let guest = fixture.engine.guest(&web).await.expect("exists");
    assert_eq!((guest.level, guest.wake_failure), (Level::Awake, None));
}

/// The end of the rollback could not be recorded, on a full disk for example.
#[tokio::test]
async fn rollback_without_an_end_is_completed_by_the_same_daemon() {
    let fixture = fixture();
    let web = name("web");
    fixture.create("web").await;
    let store = fixture.engine.store();
    let begun = store.begin_level(&web, Level::Paused, Verb::Pause, "test");
    let (_, operation) = begun.await.expect("recorded");
    let failure = Failure::new(Code::Internal, "it is not frozen");
    let noted = store.begin_rollback(operation.id, &failure).await;
    noted.expect("recorded");
    let set = store.set_level(&web, Level::Awake).await;
    set.expect("recorded");
    let watcher = fixture.engine.clone();
    let watch = async move { watcher.watch(Duration::from_millis(50)).await };
    let watch = tokio::spawn(watch);
    let ended = fixture.engine.ended_operation(operation.id).await;
    assert_eq!(ended.expect("ended").failure, Some(failure));
    watch.abort();
}
