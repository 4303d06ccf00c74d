use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use innkeeper_model::preview::PrAction;
use innkeeper_model::{Code, DesiredState, Explain, Failure, Level, Verb};
use innkeeper_store::{BackupRecords, Receipt, Restore};

use crate::support::{Fixture, SUBNET, closure, create, delivery, name, preview, wide_guest};

/// Copies a store as a backup does, and reads the copy.
async fn copy_of(fixture: &Fixture) -> (PathBuf, BackupRecords) {
    let copy = fixture.directory.path().join("copy.db");
    // An older copy is replaced.
    std::fs::write(&copy, "an older one").expect("file");
    fixture.store.copy_to(&copy).await.expect("copies");
    let records = BackupRecords::read(&copy).expect("reads");
    (copy, records)
}

fn everything(copy: PathBuf, records: &BackupRecords) -> Restore {
    Restore {
        copy,
        everything: true,
        guests: records
            .guests
            .iter()
            .map(|guest| guest.name.clone())
            .collect(),
        previews: records.previews.clone(),
        ..Restore::default()
    }
}

#[tokio::test]
async fn restored_records_keep_slots_and_states() {
    let old = Fixture::new(SUBNET);
    for guest in ["first", "web", "leaving"] {
        create(&old.store, guest).await;
    }
    let store = &old.store;
    store
        .delete_guest(&name("first"), None)
        .await
        .expect("deleted");
    store
        .set_closure(&name("web"), &closure())
        .await
        .expect("set");
    store
        .set_desired_state(&name("web"), DesiredState::Stopped)
        .await
        .expect("set");
    let leaving = name("leaving");
    store
        .begin_change(&leaving, DesiredState::Absent, Verb::Destroy, "uid:0")
        .await
        .expect("begun");
    store
        .advance_running_time(Duration::from_secs(3_600))
        .await
        .expect("advances");
    let (copy, records) = copy_of(&old).await;
    let names: Vec<_> = records
        .guests
        .iter()
        .map(|guest| guest.name.as_str())
        .collect();
    assert_eq!(names, ["web"]);

    let new = Fixture::new(SUBNET);
    let restore = everything(copy, &records);
    let moved = new
        .store
        .restore_records(restore.clone())
        .await
        .expect("restores");
    assert_eq!(moved, []);
    let web = new
        .store
        .guest(&name("web"))
        .await
        .expect("reads")
        .expect("exists");
    assert_eq!((web.slot.number(), web.desired), (2, DesiredState::Stopped));
    assert_eq!(web.closure, Some(closure()));
    // The next guest gets none of the slots that were used before.
    let (next, _) = create(&new.store, "next").await;
    assert_eq!(next.slot.number(), 4);
    let here = new.store.running_time().await.expect("time");
    let there = old.store.running_time().await.expect("time");
    assert!(there.since(here) < Duration::from_secs(60), "ages continue");
    let again = new
        .store
        .restore_records(restore)
        .await
        .expect_err("refused");
    assert_eq!(again.code(), Code::HostInUse);
    let new = new.reopened().await;
    assert!(
        new.store
            .guest(&name("web"))
            .await
            .expect("reads")
            .is_some()
    );
}

#[tokio::test]
async fn guest_with_a_taken_slot_gets_another_one() {
    let old = Fixture::new(SUBNET);
    for guest in ["web", "api", "db"] {
        create(&old.store, guest).await;
    }
    let (copy, records) = copy_of(&old).await;
    let new = Fixture::new(SUBNET);
    create(&new.store, "here").await;
    let fault = Failure::new(Code::ClosureNotFound, "its closure is missing");
    let restore = Restore {
        everything: false,
        guests: vec![name("web"), name("db")],
        without_closure: BTreeSet::from([name("web")]),
        faults: BTreeMap::from([(name("db"), fault.clone())]),
        ..everything(copy, &records)
    };
    let moved = new
        .store
        .restore_records(restore.clone())
        .await
        .expect("restores");
    assert_eq!(moved.len(), 1);
    assert_eq!((moved[0].name.as_str(), moved[0].was.number()), ("web", 1));
    let db = new
        .store
        .guest(&name("db"))
        .await
        .expect("reads")
        .expect("exists");
    assert_eq!((db.slot.number(), db.desired), (3, DesiredState::Stopped));
    assert_eq!(db.fault, Some(fault));
    let web = new
        .store
        .guest(&name("web"))
        .await
        .expect("reads")
        .expect("exists");
    assert_eq!((web.closure, web.desired), (None, DesiredState::Running));
    assert!(![1, 3].contains(&web.slot.number()), "{}", web.slot);
    assert!(
        new.store
            .guest(&name("api"))
            .await
            .expect("reads")
            .is_none()
    );

    let again = new
        .store
        .restore_records(restore)
        .await
        .expect_err("refused");
    assert_eq!(again.code(), Code::GuestExists);
    assert_eq!(new.store.guests().await.expect("reads").len(), 3);
}

/// The slots 127 and 128 of this subnet have no addresses.
#[tokio::test]
async fn guest_keeps_slots_without_addresses_behind_its_first_one() {
    let old = Fixture::new(SUBNET);
    let mut last = 0;
    for guest in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        let wide = old.store.create_guest(wide_guest(guest, 16), "uid:0").await;
        last = wide.expect("created").0.slot.number();
    }
    assert_eq!(last, 113);
    let (copy, records) = copy_of(&old).await;
    let new = Fixture::new(SUBNET);
    let restored = new.store.restore_records(everything(copy, &records)).await;
    assert_eq!(restored.expect("restores"), []);
}

#[tokio::test]
async fn guest_with_more_user_ids_keeps_all_of_its_slots_or_none() {
    let old = Fixture::new(SUBNET);
    create(&old.store, "first").await;
    let wide = old.store.create_guest(wide_guest("wide", 4), "uid:0").await;
    let was = wide.expect("created").0.slot.number();
    let (copy, records) = copy_of(&old).await;
    let restore = Restore {
        everything: false,
        guests: vec![name("wide")],
        ..everything(copy, &records)
    };
    for last_is_taken in [false, true] {
        let new = Fixture::new(SUBNET);
        let store = &new.store;
        if last_is_taken {
            let mut last = 0;
            for guest in ["a", "b", "c", "d", "e"] {
                last = create(store, guest).await.0.slot.number();
            }
            assert_eq!(last, was + 3);
            for guest in ["a", "b", "c", "d"] {
                store
                    .delete_guest(&name(guest), None)
                    .await
                    .expect("deleted");
            }
        }
        let moved = store
            .restore_records(restore.clone())
            .await
            .expect("restores");
        let wide = store
            .guest(&name("wide"))
            .await
            .expect("reads")
            .expect("exists");
        assert_eq!(
            (wide.slot.number() == was, moved.len()),
            (!last_is_taken, usize::from(last_is_taken))
        );
        let (next, _) = create(store, "next").await;
        assert!(
            next.slot.number() >= wide.slot.number() + 4,
            "{}",
            next.slot
        );
    }
}

/// A host whose agents were all destroyed still keeps their files, for as long as before.
#[tokio::test]
async fn ages_of_the_hosts_own_files_stay() {
    let old = Fixture::new(SUBNET);
    create(&old.store, "web").await;
    let year = Duration::from_secs(365 * 24 * 3_600);
    old.store
        .advance_running_time(year)
        .await
        .expect("advances");
    let (copy, records) = copy_of(&old).await;

    let new = Fixture::new(SUBNET);
    let (store, gone) = (&new.store, name("gone"));
    create(store, "gone").await;
    store
        .begin_destroy(&gone, true, "uid:0")
        .await
        .expect("begun");
    let age = async || {
        let since = store.retained().await.expect("reads")[0].since;
        let now = store.running_time().await.expect("time");
        now.since(since)
    };
    // A restore that is refused moves no clock.
    let restore = everything(copy, &records);
    let refused = store.restore_records(restore.clone()).await;
    assert_eq!(refused.expect_err("refused").code(), Code::HostInUse);
    store.delete_guest(&gone, None).await.expect("deleted");
    assert!(age().await < Duration::from_secs(60));
    store.restore_records(restore).await.expect("restores");
    assert!(age().await < Duration::from_secs(60), "{:?}", age().await);
    let now = store.running_time().await.expect("time");
    let there = old.store.running_time().await.expect("time");
    assert!(there.since(now) < Duration::from_secs(60), "ages continue");
}

#[tokio::test]
async fn held_names_are_given_by_a_restore_only() {
    let old = Fixture::new(SUBNET);
    create(&old.store, "web").await;
    let (copy, records) = copy_of(&old).await;
    let new = Fixture::new(SUBNET);
    let hold = new.store.hold_names(vec![name("web")]).await;
    let hold = hold.expect("holds");
    assert_eq!(
        new.store.held_names().await.expect("reads"),
        BTreeSet::from([name("web")])
    );
    let refused = new.store.create_guest(wide_guest("web", 1), "uid:0").await;
    assert_eq!(refused.expect_err("held").code(), Code::GuestBusy);
    create(&new.store, "other").await;
    // The delivery of a preview that is being restored waits for it.
    let hold_preview = new.store.hold_names(vec![name("web-1")]).await;
    let hold_preview = hold_preview.expect("holds");
    let opened = delivery("d1", 1, PrAction::Opened, 1);
    let receipt = new.store.record_delivery(opened).await.expect("records");
    assert_eq!(receipt, Receipt::New { slug: None });
    let claim = || new.store.claim_preview(preview(1), vec![name("web-1")]);
    assert_eq!(claim().await.expect_err("held").code(), Code::GuestBusy);
    drop(hold_preview);
    claim().await.expect("is free");
    let restore = Restore {
        everything: false,
        ..everything(copy, &records)
    };
    new.store.restore_records(restore).await.expect("restores");
    drop(hold);
    assert!(new.store.held_names().await.expect("reads").is_empty());
    new.store
        .delete_guest(&name("web"), None)
        .await
        .expect("deleted");
    create(&new.store, "web").await;
}

/// A backup has no memory, so a paused guest returns asleep.
#[tokio::test]
async fn restored_guests_rest_as_far_as_they_can() {
    let old = Fixture::new(SUBNET);
    let levels = [
        ("awake", Level::Awake),
        ("broken", Level::Paused),
        ("paused", Level::Paused),
        ("resting", Level::Asleep),
    ];
    for (guest, level) in levels {
        create(&old.store, guest).await;
        let set = old.store.set_level(&name(guest), level).await;
        set.expect("recorded");
    }
    let (copy, records) = copy_of(&old).await;
    let new = Fixture::new(SUBNET);
    let fault = Failure::new(Code::ClosureNotFound, "its closure is missing");
    let restore = Restore {
        faults: BTreeMap::from([(name("broken"), fault)]),
        ..everything(copy, &records)
    };
    new.store.restore_records(restore).await.expect("restores");
    let guests = new.store.guests().await.expect("reads");
    let levels = guests.iter().map(|guest| (guest.desired, guest.level));
    let (running, stopped) = (DesiredState::Running, DesiredState::Stopped);
    assert_eq!(
        levels.collect::<Vec<_>>(),
        [
            (running, Level::Awake),
            (stopped, Level::Awake),
            (running, Level::Asleep),
            (running, Level::Asleep)
        ]
    );
}
