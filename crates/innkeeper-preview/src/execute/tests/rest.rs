//! Previews whose guests rest.

use innkeeper_model::api::Verdict;
use innkeeper_model::preview::api::LinkKind;
use innkeeper_model::{Guest, Level, OperationState};

use super::*;
use crate::steps::App;

#[tokio::test]
async fn resting_guest_is_left_alone_until_it_is_woken() {
    let harness = harness(serve_app().await).await;
    execute(&harness).await.expect("restored");
    let health = &harness.parts.parts.health;
    for (level, state) in [
        (Level::Paused, RouteState::Live),
        (Level::Asleep, RouteState::Held),
        (Level::Paused, RouteState::Live),
        (Level::Awake, RouteState::Live),
    ] {
        let set = harness.store.set_level(&slug(), level).await;
        set.expect("recorded");
        harness.host.world().calls.clear();
        execute(&harness).await.expect("maintained");
        let calls = calls(&harness);
        assert!(
            !calls.iter().any(|call| call.starts_with("unit.")),
            "{calls:?}"
        );
        assert_eq!(harness.host.world().routes[&slug()].state, state, "{level}");
        // A probe would wait like a request.
        assert_eq!(
            health.watched().is_empty(),
            level != Level::Awake,
            "{level}"
        );
        assert_eq!(health.trouble(&slug()), None, "{level}");
    }
}

async fn guest(harness: &Harness) -> Guest {
    let guest = harness.store.guest(&slug()).await.expect("reads");
    guest.expect("exists")
}

/// Executes the steps that follow from an inspection.
async fn follow(harness: &Harness, app: App) -> Result<(), PreviewError> {
    let preview = harness.preview().await.expect("exists");
    let plan = Plan::Maintain;
    let left = steps(plan, &preview, Seen::App(app)).into();
    let executor = &harness.parts.parts.executor;
    executor.follow(plan, &preview, left).await
}

/// The guest is put to sleep, paused or stopped between the inspection that found the app down, and the steps that would bring
/// it back.
#[tokio::test]
async fn rest_that_begins_before_a_revival_is_kept() {
    for (level, state) in [
        (Some(Level::Asleep), RouteState::Held),
        (Some(Level::Paused), RouteState::Live),
        (None, RouteState::Placeholder),
    ] {
        let harness = harness(serve_app().await).await;
        execute(&harness).await.expect("restored");
        let engine = &harness.previews.components.engine;
        let accepted = match level {
            Some(Level::Asleep) => engine.sleep(&slug(), "alice").await,
            Some(_) => engine.pause(&slug(), "alice").await,
            None => engine.stop(&slug(), "alice").await,
        };
        let operation = accepted.expect("accepted").operation;
        let ended = engine.ended_operation(operation).await.expect("ended");
        assert_eq!(ended.failure, None);
        harness.host.world().calls.clear();
        follow(&harness, App::Down).await.expect("left alone");
        assert!(!called(&harness, "unit.ensure"), "{level:?}");
        assert!(!called(&harness, "unit.thaw"), "{level:?}");
        assert_eq!(guest(&harness).await.rests(), level);
        assert_eq!(harness.host.world().routes[&slug()].state, state);
        assert_eq!(harness.parts.parts.health.trouble(&slug()), None);
    }
}

/// A command in the guest fails because it was paused meanwhile.
#[tokio::test]
async fn rest_that_begins_during_a_revival_is_no_failure() {
    let harness = harness(serve_app().await).await;
    execute(&harness).await.expect("restored");
    let store = harness.store.clone();
    harness.host.world().exec = Some(Arc::new(move |_, request| {
        if starts(&request.command) {
            let store = store.clone();
            let pause = async move { store.set_level(&slug(), Level::Paused).await };
            let paused = std::thread::spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().build();
                runtime.expect("a runtime").block_on(pause)
            });
            paused.join().expect("ends").expect("recorded");
            return ExecResult {
                status: 1,
                ..ExecResult::default()
            };
        }
        run(&request.command)
    }));
    follow(&harness, App::Ended).await.expect("no failure");
    assert_eq!(route(&harness), RouteState::Live);
    assert_eq!(guest(&harness).await.rests(), Some(Level::Paused));
    assert!(harness.parts.parts.health.watched().is_empty());
}

#[tokio::test]
async fn paused_guest_without_processes_is_asleep() {
    let harness = harness(serve_app().await).await;
    execute(&harness).await.expect("restored");
    let set = harness.store.set_level(&slug(), Level::Paused).await;
    set.expect("recorded");
    // As after a reboot of the host, before the engine has recorded it.
    harness.host.world().units.clear();
    execute(&harness).await.expect("maintained");
    assert_eq!(route(&harness), RouteState::Held);
}

#[tokio::test]
async fn guest_that_does_not_wake_is_left_asleep_with_the_reason() {
    let harness = harness(serve_app().await).await;
    execute(&harness).await.expect("restored");
    let (previews, engine) = (&harness.previews, &harness.previews.components.engine);
    let asleep = previews.sleep_guest(&slug(), "alice").await;
    let asleep = asleep.expect("accepted").operation;
    engine.ended_operation(asleep).await.expect("ended");
    harness.host.fail("unit.ensure", u32::MAX);
    let woken = previews.wake_guest(&slug(), "alice").await;
    let woken = woken.expect("accepted").operation;
    // It waits for the wake.
    execute(&harness).await.expect("left alone");
    let woken = engine.ended_operation(woken).await.expect("ended");
    assert_eq!(woken.state, OperationState::Failed);
    execute(&harness).await.expect("left alone");
    let left = harness.host.world().failures["unit.ensure"].times;
    assert_eq!(u32::MAX - left, 1, "it is not retried");
    assert_eq!(route(&harness), RouteState::Held);
    let asleep = guest(&harness).await;
    assert_eq!(asleep.rests(), Some(Level::Asleep));
    let failure = asleep.wake_failure.expect("the reason");
    assert_eq!(Some(&failure), woken.failure.as_ref());

    let explained = previews.explain(&slug()).await.expect("explained");
    let unit = explained
        .chain
        .iter()
        .find(|one| one.link == LinkKind::Unit);
    let unit = unit.expect("a link");
    assert_eq!(unit.verdict, Verdict::Broken);
    assert!(unit.finding.contains(&failure.message), "{unit:?}");
    let remedy = unit.remedy.as_ref().expect("a remedy");
    assert!(remedy.contains("preview wake web-7"), "{remedy}");

    // The next attempt forgets it.
    harness.host.world().failures.clear();
    let woken = previews.wake_guest(&slug(), "alice").await;
    let woken = woken.expect("accepted").operation;
    let woken = engine.ended_operation(woken).await.expect("ended");
    assert_eq!(
        (woken.failure, guest(&harness).await.wake_failure),
        (None, None)
    );
    execute(&harness).await.expect("restored");
    assert_eq!(route(&harness), RouteState::Live);
}

#[tokio::test]
async fn accepted_rest_ends_work_in_hand_and_a_failed_one_is_followed() {
    let mut harness = harness(serve_app().await).await;
    execute(&harness).await.expect("restored");
    let engine = harness.previews.components.engine.clone();
    let workers = harness.previews.components.workers.clone();
    let follower =
        crate::level_changes::follow(engine.journal().subscribe(), engine.clone(), workers);
    let follower = tokio::spawn(follower);
    harness.host.fail("unit.freeze", 1);
    let paused = harness.previews.pause_guest(&slug(), "alice").await;
    let paused = paused.expect("accepted").operation;
    let worker = harness.parts.workers.try_recv().expect("woken");
    assert_eq!(worker.wakeups.borrow().commands, 1);
    let ended = engine.ended_operation(paused).await.expect("ended");
    assert!(ended.failure.is_some());
    let mut wakeups = worker.wakeups.clone();
    // Once for the pause, once for its rollback.
    while wakeups.borrow_and_update().checks == 0 {
        wakeups.changed().await.expect("a worker");
    }
    assert_eq!(guest(&harness).await.rests(), None);
    execute(&harness).await.expect("maintained");
    assert_eq!(harness.parts.parts.health.watched().len(), 1);
    follower.abort();
}

/// A new version and the rollback from it have failed, so that the guest may hold either.
#[tokio::test]
async fn half_deployed_preview_that_rests_is_left_alone() {
    for (level, state) in [
        (Level::Asleep, RouteState::Held),
        (Level::Paused, RouteState::Placeholder),
    ] {
        let harness = harness(serve_app().await).await;
        execute(&harness).await.expect("restored");
        let failed = PreviewFact::State(PreviewState::Failed);
        harness.set(vec![failed, PreviewFact::Dirty(true)]).await;
        let set = harness.store.set_level(&slug(), level).await;
        set.expect("recorded");
        execute(&harness).await.expect("left alone");
        assert_eq!(route(&harness), state, "{level}");
        harness.host.world().calls.clear();
        execute(&harness).await.expect("left alone");
        let calls = calls(&harness);
        assert!(
            !calls.iter().any(|call| call.starts_with("database.")),
            "{calls:?}"
        );
        assert_eq!(route(&harness), state, "{level}");
        // Woken, it goes back.
        let set = harness.store.set_level(&slug(), Level::Awake).await;
        set.expect("recorded");
        execute(&harness).await.expect("back");
        assert_eq!(route(&harness), RouteState::Live, "{level}");
        assert!(!harness.preview().await.expect("exists").dirty);
    }
}
