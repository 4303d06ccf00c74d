//! Cached closures and evaluations.

use std::time::Duration;

use innkeeper_model::{Installable, StorePath};
use innkeeper_store::PreviewFact;

use crate::support::{Fixture, SUBNET, claim, closure, meta, name, preview};

#[tokio::test]
async fn built_closure_is_cached_until_the_next_build() {
    let fixture = Fixture::new(SUBNET);
    let flake = Installable::parse("/srv/fleet", "agent").expect("installable");
    let store = &fixture.store;
    assert_eq!(store.cached_closure(&flake).await.expect("reads"), None);
    store
        .cache_closure(&flake, &closure(), "one")
        .await
        .expect("writes");
    store
        .cache_closure(&flake, &closure(), "two")
        .await
        .expect("replaces");

    let fixture = fixture.reopened().await;
    let store = &fixture.store;
    let cached = store
        .cached_closure(&flake)
        .await
        .expect("reads")
        .expect("cached");
    assert_eq!(cached.installable, "/srv/fleet#agent");
    assert_eq!(
        (cached.closure, cached.fingerprint.as_str()),
        (closure(), "two")
    );
}

#[tokio::test]
async fn evaluations_in_use_are_not_evicted() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    for key in ["held", "asked", "idle"] {
        store
            .cache_evaluation(key, &closure(), &meta())
            .await
            .expect("keeps");
    }
    claim(store, 1, &["web-1"]).await.expect("claims");
    let held = PreviewFact::Evaluated {
        key: "held".to_owned(),
        closure: closure(),
        meta: Box::new(meta()),
    };
    store
        .set_preview(&name("web-1"), vec![held])
        .await
        .expect("records");
    // Another version is desired by now, and this one is still served.
    let served =
        StorePath::parse(&format!("/nix/store/{}-served", "1".repeat(32))).expect("a path");
    let live = PreviewFact::Live {
        sha: preview(1).wanted_sha,
        closure: served.clone(),
        meta: Box::new(meta()),
    };
    store
        .cache_evaluation("in-service", &served, &meta())
        .await
        .expect("records");
    store
        .set_preview(&name("web-1"), vec![live])
        .await
        .expect("records");
    let set = store.set_expiry_grace(Duration::ZERO).await;
    set.expect("sets");
    let hour = Duration::from_secs(3_600);
    let moved = store.advance_running_time(2 * hour).await;
    moved.expect("moves");
    let asked = store.evaluation("asked").await.expect("reads");
    assert!(asked.is_some());
    let young = store.evict_unused_evaluations(3 * hour).await;
    assert_eq!(young.expect("forgets"), []);
    let forgotten = store.evict_unused_evaluations(hour).await;
    let forgotten = forgotten.expect("forgets");
    let keys: Vec<_> = forgotten.iter().map(|e| e.key.as_str()).collect();
    assert_eq!(keys, ["idle"]);
    let left = store.evaluations().await.expect("reads");
    let keys: Vec<_> = left.iter().map(|e| e.key.as_str()).collect();
    assert_eq!(keys, ["asked", "held", "in-service"]);
    assert_eq!(left[0].meta, meta());
    assert!(store.evaluation("idle").await.expect("reads").is_none());
}
