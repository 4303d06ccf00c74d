//! Garbage collection.

use innkeeper_facilities::Found;
use innkeeper_model::api::{GcRequest, Verdict};
use innkeeper_model::{GuestState, Ownership};

use crate::fixture::{fixture, name};

#[tokio::test]
async fn gc_removes_orphans_and_spares_guests() {
    let fixture = fixture();
    fixture.create("web").await;
    {
        let mut world = fixture.host.world();
        world.trees.insert(name("lost"), String::new());
        world.links.insert(name("lost"));
    }
    let dry_run = fixture
        .engine
        .gc(GcRequest {
            dry_run: true,
            unmarked: false,
        })
        .await
        .expect("checked");
    assert_eq!(dry_run.orphans.len(), 2);
    assert!(
        fixture.host.world().trees.contains_key(&name("lost")),
        "a dry run removes nothing"
    );
    let swept = fixture
        .engine
        .gc(GcRequest::default())
        .await
        .expect("swept");
    assert!(
        swept.orphans.iter().all(|orphan| orphan.removed),
        "{swept:?}"
    );
    assert!(!fixture.host.world().trees.contains_key(&name("lost")));
    assert_eq!(fixture.state("web").await, Some(GuestState::Running));
    assert!(
        fixture
            .engine
            .gc(GcRequest::default())
            .await
            .expect("swept")
            .orphans
            .is_empty()
    );
}

/// Another daemon has a guest of the same name. Its objects stay, and do not block this daemon's destroy.
#[tokio::test]
async fn gc_keeps_foreign_and_unmarked_objects() {
    let fixture = fixture();
    fixture.create("web").await;
    let foreign = |guest, object: &str, ownership| Found {
        guest: Some(name(guest)),
        object: object.to_owned(),
        ownership,
    };
    let theirs = foreign("web", "ve-7", Ownership::Other);
    let unmarked = foreign("lost", "ve-8", Ownership::Unmarked);
    fixture.host.world().foreign = vec![theirs.clone(), unmarked.clone()];
    let swept = fixture
        .engine
        .gc(GcRequest::default())
        .await
        .expect("swept");
    let listed: Vec<_> = swept
        .orphans
        .iter()
        .map(|one| (&*one.object, one.ownership, one.removed))
        .collect();
    assert_eq!(
        listed,
        [
            ("ve-7", Ownership::Other, false),
            ("ve-8", Ownership::Unmarked, false)
        ]
    );
    assert_eq!(fixture.host.world().foreign, [theirs.clone(), unmarked]);
    let checks = fixture.engine.doctor().await.expect("checked").checks;
    let about = |object| checks.iter().find(|check| check.finding.contains(object));
    assert_eq!(about("ve-7"), None);
    assert_eq!(
        about("ve-8").map(|check| check.verdict),
        Some(Verdict::Warning)
    );

    let all = GcRequest {
        dry_run: false,
        unmarked: true,
    };
    fixture.engine.gc(all).await.expect("swept");
    assert_eq!(fixture.host.world().foreign, [theirs]);
    let destroyed = fixture.destroy("web").await;
    assert_eq!(destroyed.failure, None);
    assert_eq!(fixture.state("web").await, None);
}

#[tokio::test]
async fn doctor_checks_broken_rules_twice() {
    let fixture = fixture();
    for (failures, verdict) in [(0, Verdict::Ok), (1, Verdict::Ok), (2, Verdict::Broken)] {
        fixture.host.fail("firewall.check", failures);
        let checks = fixture.engine.doctor().await.expect("checked").checks;
        let found = checks.iter().find(|check| check.subject == "firewall");
        assert_eq!(
            found.map(|check| check.verdict),
            Some(verdict),
            "{failures}"
        );
    }
}
