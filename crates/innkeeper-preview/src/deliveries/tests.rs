use innkeeper_model::preview::api::DeliveryState;

use super::*;
use crate::fixture::{Harness, delivery, sha};

/// Records a delivery of a pull request without a preview, and dispatches it.
async fn dispatch(harness: &Harness, action: PrAction) -> DeliveryState {
    let mut new = delivery("only", action, sha('a'));
    new.slugs.clear();
    harness.store.record_delivery(new).await.expect("recorded");
    harness
        .parts
        .deliveries
        .dispatch()
        .await
        .expect("dispatched");
    let delivery = harness.store.delivery("only").await.expect("read");
    delivery.expect("recorded").state
}

#[tokio::test]
async fn push_without_a_preview_creates_one() {
    let mut harness = Harness::new().await;
    let state = dispatch(&harness, PrAction::Synchronize).await;
    // Its worker acts on it.
    assert_eq!(state, DeliveryState::Pending);
    assert_eq!(harness.record().await.wanted_sha, sha('a'));
    assert!(harness.was_woken());
}

#[tokio::test]
async fn close_without_a_preview_is_done() {
    let mut harness = Harness::new().await;
    let state = dispatch(&harness, PrAction::Closed).await;
    assert_eq!(state, DeliveryState::Done);
    assert!(harness.preview().await.is_none());
    assert!(!harness.was_woken());
}

#[tokio::test]
async fn other_event_without_a_preview_is_ignored() {
    let harness = Harness::new().await;
    let state = dispatch(&harness, PrAction::Edited).await;
    assert_eq!(state, DeliveryState::Ignored);
    assert!(harness.preview().await.is_none());
}

#[tokio::test]
async fn delivery_of_a_preview_wakes_its_worker() {
    let mut harness = Harness::new().await;
    harness.deliver("opened", PrAction::Opened, sha('a')).await;
    harness
        .parts
        .deliveries
        .dispatch()
        .await
        .expect("dispatched");
    assert!(harness.was_woken());
}
