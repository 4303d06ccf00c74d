//! The running time advances while a store is open, and with nothing else.

use std::time::Duration;

use crate::support::Fixture;

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn running_time_goes_on_after_a_restart_where_it_was() {
    let fixture = Fixture::new("10.100.0.0/16");
    let began = fixture.store.running_time().await.expect("reads");
    let moved = fixture.store.advance_running_time(HOUR).await;
    moved.expect("moves");
    let before = fixture.store.running_time().await.expect("reads");
    assert!(before.since(began) >= HOUR);

    let fixture = fixture.reopened().await;
    let after = fixture.store.running_time().await.expect("reads");
    assert!(after >= before);
    assert!(after.since(began) < 2 * HOUR);
}

#[tokio::test]
async fn nothing_expires_until_the_daemon_has_run_for_the_grace_period() {
    let fixture = Fixture::new("10.100.0.0/16");
    let began = fixture.store.running_time().await.expect("reads");
    let moved = fixture.store.advance_running_time(2 * HOUR).await;
    moved.expect("moves");
    let fixture = fixture.reopened().await;
    let at_start = fixture.store.expiry_clock().await.expect("reads");
    assert!(at_start.now().since(began) > HOUR);
    assert!(!at_start.has_expired(began, HOUR));

    let set = fixture.store.set_expiry_grace(Duration::ZERO).await;
    set.expect("sets");
    let later = fixture.store.expiry_clock().await.expect("reads");
    assert!(later.has_expired(began, HOUR));
    assert!(!later.has_expired(began, 3 * HOUR));
}
