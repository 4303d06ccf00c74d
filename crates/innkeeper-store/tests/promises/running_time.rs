//! Running time advances only while a store is open.

use std::time::Duration;

use crate::support::{Fixture, SUBNET};

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn running_time_continues_after_a_restart() {
    let fixture = Fixture::new(SUBNET);
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
async fn expiry_waits_for_the_grace_period_after_a_start() {
    let fixture = Fixture::new(SUBNET);
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
