//! Copies of guests' files for backups, and guests from backups.

use std::collections::BTreeMap;
use std::path::PathBuf;

use innkeeper_facilities::FileOwners;
use innkeeper_model::{Code, Failure, Guest, GuestState, Operation, OperationState, Verb};
use innkeeper_store::{BackupRecords, Restore};
use tokio::sync::oneshot;

use crate::fixture::{Fixture, fixture, name};

impl Fixture {
    /// Returns the calls that suspend and copy guests.
    fn copies(&self) -> Vec<String> {
        let calls = self.host.world().calls.clone();
        let copies = ["unit.freeze", "rootfs.export", "unit.thaw"];
        let is_one = |call: &String| copies.iter().any(|one| call.starts_with(one));
        calls.into_iter().filter(is_one).collect()
    }

    async fn record_of(&self, guest: &str) -> Guest {
        let found = self.engine.store().guest(&name(guest)).await;
        found.expect("reads").expect("exists")
    }

    /// Makes a set with the files of a guest: returns its directory, the copied records and the copied files.
    async fn set_of(&self, guest: &str) -> (tempfile::TempDir, BackupRecords, PathBuf) {
        let set = tempfile::tempdir().expect("directory");
        let (store, files) = (set.path().join("db"), set.path().join("rootfs"));
        self.engine.store().copy_to(&store).await.expect("copies");
        let records = BackupRecords::read(&store).expect("reads");
        let record = self.record_of(guest).await;
        let exported = self.engine.export_guest(&record, &files).await;
        exported.expect("copies").expect("has files");
        (set, records, files)
    }

    /// Restores a guest, and returns the operation.
    async fn restore_from(
        &self,
        guest: Guest,
        files: PathBuf,
        restore: Restore,
    ) -> (Operation, Vec<String>) {
        let (engine, (moved, result)) = (self.engine.clone(), oneshot::channel());
        let accepted = self
            .engine
            .run_operation(Verb::RestoreBackup, "test", |log| async move {
                let files = [(guest, files.as_path())];
                let restored = engine
                    .restore_guests(&files, FileOwners::Guest, restore, &log)
                    .await;
                let restored = restored.map_err(|error| Failure::from(&error))?;
                let names = restored.into_iter().map(|guest| guest.name.to_string());
                drop(moved.send(names.collect()));
                Ok(())
            });
        let operation = self.ended(accepted.await.expect("accepted")).await;
        (operation, result.await.unwrap_or_default())
    }
}

#[tokio::test]
async fn running_guest_is_suspended_until_its_files_are_copied() {
    let fixture = fixture();
    fixture.host.world().plain = true;
    fixture.create("web").await;
    let web = fixture.record_of("web").await;
    let set = tempfile::tempdir().expect("directory");
    for (failing, files) in [(1, "one"), (0, "two")] {
        fixture.host.world().calls.clear();
        fixture.host.fail("rootfs.export", failing);
        let to = set.path().join(files);
        let exported = fixture.engine.export_guest(&web, &to).await;
        assert_eq!(exported.is_err(), failing == 1);
        // It continues after a failure, too.
        let expected = ["unit.freeze web", "rootfs.export web", "unit.thaw web"];
        assert_eq!(fixture.copies(), expected);
    }
    let stopped = fixture.engine.stop(&name("web"), "test").await;
    fixture.ended(stopped.expect("accepted")).await;
    fixture.host.world().calls.clear();
    let exported = fixture
        .engine
        .export_guest(&web, &set.path().join("three"))
        .await;
    assert!(exported.expect("copies").is_some());
    assert_eq!(fixture.copies(), ["rootfs.export web"]);
    // A guest of the same name is another one.
    let destroyed = fixture.engine.destroy(&web.name, true, "test").await;
    fixture.ended(destroyed.expect("accepted")).await;
    for again in [false, true] {
        if again {
            fixture.create("web").await;
        }
        let to = set.path().join("four");
        let missing = fixture.engine.export_guest(&web, &to).await;
        assert_eq!(missing.expect("no such guest"), None);
    }
}

#[tokio::test]
async fn destroy_cancels_the_copy_of_the_guest() {
    let fixture = fixture();
    fixture.host.world().plain = true;
    fixture.create("web").await;
    let set = tempfile::tempdir().expect("directory");
    let held = fixture.host.exports.write().await;
    let (engine, to) = (fixture.engine.clone(), set.path().join("rootfs"));
    let web = fixture.record_of("web").await;
    let copy = tokio::spawn(async move { engine.export_guest(&web, &to).await });
    fixture
        .until("the copy began", async || fixture.copies().len() == 2)
        .await;
    let destroyed = fixture.engine.destroy(&name("web"), true, "test").await;
    let ended = fixture.ended(destroyed.expect("accepted")).await;
    assert_eq!(ended.failure, None);
    assert_eq!(copy.await.expect("ends").expect("canceled"), None);
    let expected = ["unit.freeze web", "rootfs.export web", "unit.thaw web"];
    assert_eq!(fixture.copies(), expected);
    drop(held);
}

#[tokio::test]
async fn guest_is_restored_with_its_files_and_started() {
    let old = fixture();
    old.create("web").await;
    old.write("web", "kept");
    let (set, records, files) = old.set_of("web").await;
    let new = fixture();
    let restore = Restore {
        copy: set.path().join("db"),
        everything: true,
        guests: vec![name("web")],
        ..Restore::default()
    };
    let guest = records.guests[0].clone();

    // A failure leaves neither records nor files.
    for call in ["rootfs.import", "store"] {
        let mut restore = restore.clone();
        match call {
            "store" => restore.copy = "/nonexistent/db".into(),
            call => new.host.fail(call, 1),
        }
        let (operation, _) = new
            .restore_from(guest.clone(), files.clone(), restore)
            .await;
        assert_eq!(operation.state, OperationState::Failed, "{call}");
        assert_eq!(
            (new.files("web"), new.state("web").await),
            (None, None),
            "{call}"
        );
    }

    let (operation, moved) = new
        .restore_from(guest.clone(), files.clone(), restore.clone())
        .await;
    assert_eq!((operation.failure, moved.len()), (None, 0));
    new.until("web runs", async || {
        new.state("web").await == Some(GuestState::Running)
    })
    .await;
    assert_eq!(new.files("web").as_deref(), Some("kept"));

    // Its files are not touched by another restore.
    new.write("web", "newer");
    let (operation, _) = new.restore_from(guest, files, restore).await;
    assert_eq!(operation.failure.expect("refused").code, Code::GuestExists);
    assert_eq!(new.files("web").as_deref(), Some("newer"));
}

#[tokio::test]
async fn guest_without_its_closure_is_restored_and_stopped() {
    let old = fixture();
    old.create("web").await;
    let (set, records, files) = old.set_of("web").await;
    let new = fixture();
    let fault = Failure::new(Code::ClosureNotFound, "its closure is missing");
    let restore = Restore {
        copy: set.path().join("db"),
        everything: true,
        guests: vec![name("web")],
        faults: BTreeMap::from([(name("web"), fault.clone())]),
        ..Restore::default()
    };
    let (operation, _) = new
        .restore_from(records.guests[0].clone(), files, restore)
        .await;
    assert_eq!(operation.failure, None);
    let web = new.engine.guest(&name("web")).await.expect("exists");
    assert_eq!(web.fault, Some(fault));
    assert_eq!(new.state("web").await, Some(GuestState::Stopped));
    assert!(new.files("web").is_some());
}
