//! Slots of an older installation are reserved.

use std::fs;
use std::path::{Path, PathBuf};

use innkeeper_store::Store;

use crate::support::{Fixture, SUBNET, create, forget};

/// The two state directories of an older installation.
struct Older {
    agents: PathBuf,
    previews: PathBuf,
}

impl Older {
    fn new(directory: &Path) -> Self {
        let older = Self {
            agents: directory.join("claude-agents"),
            previews: directory.join("preview-deploys"),
        };
        fs::create_dir(&older.agents).expect("agents");
        fs::create_dir(&older.previews).expect("previews");
        older
    }

    async fn import(&self, store: &Store) -> Vec<String> {
        store
            .reserve_legacy_slots(&[self.agents.clone(), self.previews.clone()])
            .await
            .expect("imports")
    }
}

fn write(directory: &Path, name: &str, text: impl AsRef<[u8]>) {
    fs::write(directory.join(name), text).expect(name);
}

async fn reserved(store: &Store) -> Vec<(u32, String)> {
    let report = store.slots().await.expect("report");
    let file = |owner: &str| owner.rsplit('/').next().unwrap_or_default().to_owned();
    let taken = report
        .taken
        .into_iter()
        .filter(|taken| taken.kind.is_none());
    taken
        .map(|taken| (taken.slot.number(), file(&taken.owner)))
        .collect()
}

fn reservations(expected: &[(u32, &str)]) -> Vec<(u32, String)> {
    expected
        .iter()
        .map(|(slot, file)| (*slot, (*file).to_owned()))
        .collect()
}

#[tokio::test]
async fn legacy_counter_and_slots_are_reserved() {
    let fixture = Fixture::new(SUBNET);
    let older = Older::new(fixture.directory.path());
    write(&older.agents, ".next_slot", "5\n");
    write(&older.agents, "a-kdj3f2", "3 10.100.0.6 10.100.0.7\n");
    write(
        &older.previews,
        "web-12",
        "6 10.100.0.12 10.100.0.13 owner/web feature/x\n",
    );
    for other in [
        "web-12.meta",
        "web-12.sha",
        "web-12.type",
        "web-12.meta.old",
        ".system-path",
    ] {
        write(&older.previews, other, "not a slot");
    }
    fs::create_dir(older.previews.join(".closure-cache")).expect("cache");
    write(&older.agents, ".slot.lock", "");

    assert_eq!(older.import(&fixture.store).await, [""; 0]);
    assert_eq!(
        reserved(&fixture.store).await,
        reservations(&[(3, "a-kdj3f2"), (6, "web-12")])
    );
    let report = fixture.store.slots().await.expect("report");
    assert_eq!(
        report.counter, 4,
        "the file holds the next slot to give out"
    );
    assert_eq!(create(&fixture.store, "a").await.0.slot.number(), 5);
    assert_eq!(
        create(&fixture.store, "b").await.0.slot.number(),
        7,
        "6 is reserved"
    );

    let fixture = fixture.reopened().await;
    assert_eq!(reserved(&fixture.store).await.len(), 2);
}

#[tokio::test]
async fn import_replaces_the_earlier_reservations() {
    let fixture = Fixture::new("10.9.0.0/29"); // slots 1 to 3
    let older = Older::new(fixture.directory.path());
    write(&older.agents, ".next_slot", "3");
    write(&older.agents, "one", "1 10.9.0.2 10.9.0.3");
    write(&older.agents, "two", "2 10.9.0.4 10.9.0.5");
    older.import(&fixture.store).await;
    assert_eq!(create(&fixture.store, "a").await.0.slot.number(), 3);

    // The older installation's guests go one after the other; a new guest gets the slot that became free first.
    fs::remove_file(older.agents.join("two")).expect("two");
    older.import(&fixture.store).await;
    for file in [".next_slot", "one"] {
        fs::remove_file(older.agents.join(file)).expect(file);
    }
    fs::remove_dir(&older.agents).expect("agents");
    assert_eq!(
        older.import(&fixture.store).await,
        [""; 0],
        "a missing directory is nothing"
    );
    assert_eq!(fixture.store.slots().await.expect("report").counter, 3);
    assert_eq!(create(&fixture.store, "b").await.0.slot.number(), 2);
    assert_eq!(create(&fixture.store, "c").await.0.slot.number(), 1);
}

#[tokio::test]
async fn malformed_files_are_reported_and_not_fatal() {
    let fixture = Fixture::new(SUBNET);
    let older = Older::new(fixture.directory.path());
    write(&older.agents, ".next_slot", "seven");
    for (name, text) in [
        ("empty", ""),
        ("zero", "0 10.100.0.0 10.100.0.1"),
        ("huge", "99999999999 10.100.0.2 10.100.0.3"),
        ("signed", "+4 10.100.0.8 10.100.0.9"),
        ("words", "slot three"),
    ] {
        write(&older.agents, name, text);
    }
    write(&older.agents, "binary", [0xff, 0xfe, 0x00]);
    write(&older.agents, "long", "7 ".repeat(5000));
    write(&older.agents, "short", "8");
    write(
        &older.agents,
        "two-lines",
        "9 10.100.0.18 10.100.0.19\n10 10.100.0.20 10.100.0.21\n",
    );
    write(&older.agents, "good", "11 10.100.0.22 10.100.0.23");
    fs::create_dir(older.agents.join("folder")).expect("folder");

    let notes = older.import(&fixture.store).await;
    for bad in [
        ".next_slot",
        "empty",
        "zero",
        "huge",
        "signed",
        "words",
        "binary",
        "long",
        "short",
        "two-lines",
        "folder",
    ] {
        let path = older.agents.join(bad).display().to_string();
        let about = notes
            .iter()
            .filter(|note| note.starts_with(&format!("{path} ")))
            .count();
        assert_eq!(about, 1, "{bad}: {notes:#?}");
    }
    assert_eq!(notes.len(), 11, "{notes:#?}");
    // A readable slot is reserved whatever else the file contains.
    assert_eq!(
        reserved(&fixture.store).await,
        reservations(&[(8, "short"), (9, "two-lines"), (11, "good")])
    );
}

#[tokio::test]
async fn unreadable_files_keep_their_reservations() {
    let fixture = Fixture::new(SUBNET);
    let older = Older::new(fixture.directory.path());
    write(&older.agents, "agent", "1 10.100.0.2 10.100.0.3");
    write(&older.previews, "web-1", "2 10.100.0.4 10.100.0.5");
    older.import(&fixture.store).await;

    write(&older.agents, "agent", "torn");
    fs::remove_file(older.previews.join("web-1")).expect("file");
    fs::remove_dir(&older.previews).expect("directory");
    write(
        fixture.directory.path(),
        "preview-deploys",
        "a file where a directory was",
    );
    assert_eq!(older.import(&fixture.store).await.len(), 2);
    assert_eq!(
        reserved(&fixture.store).await,
        reservations(&[(1, "agent"), (2, "web-1")])
    );
}

#[tokio::test]
async fn slot_shared_with_a_guest_is_reported() {
    let fixture = Fixture::new(SUBNET);
    let older = Older::new(fixture.directory.path());
    create(&fixture.store, "web").await;
    write(&older.agents, "agent", "1 10.100.0.2 10.100.0.3");
    let notes = older.import(&fixture.store).await;
    let [note] = &notes[..] else {
        panic!("{notes:?}");
    };
    assert!(note.contains("Slot 1 ") && note.contains("'web'"), "{note}");
    assert!(note.contains("claude-agents/agent"), "{note}");

    // The slot is free when both guests have gone, in either order.
    forget(&fixture.store, "web").await;
    assert_eq!(
        reserved(&fixture.store).await,
        reservations(&[(1, "agent")])
    );
}

#[tokio::test]
async fn address_of_another_slot_reserves_that_slot_too() {
    let fixture = Fixture::new(SUBNET);
    let older = Older::new(fixture.directory.path());
    write(&older.agents, "agent", "1 10.100.0.8 10.100.0.9");
    write(&older.agents, "elsewhere", "2 192.168.7.4 192.168.7.5");
    let notes = older.import(&fixture.store).await;
    assert!(
        notes.iter().all(|note| note.contains("slot 4")),
        "{notes:?}"
    );
    assert_eq!(
        reserved(&fixture.store).await,
        reservations(&[(1, "agent"), (2, "elsewhere"), (4, "agent")])
    );
}
