//! Opening and closing: files that cannot be used are left unchanged, each with its own error and remedy.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use innkeeper_model::{Code, DesiredState, EventKind, Explain, Failure, OperationId, Verb};
use innkeeper_store::{Store, StoreError};
use rusqlite::Connection;

use crate::support::{
    Fixture, SUBNET, child_directory, create, database, forget, new_guest, open, run_child,
    test_process, with_tmpfs,
};

/// Expects that opening fails with a remedy and leaves the file unchanged; returns the error.
fn refusal(path: &Path, subnet: &str) -> StoreError {
    let before = fs::read(path).expect("reads");
    let error = open(path, subnet).expect_err("must be refused");
    assert!(error.remedy().is_some(), "{error}: no remedy");
    assert!(
        fs::read(path).expect("reads") == before,
        "{error}: the file was changed"
    );
    error
}

#[tokio::test]
async fn new_file_is_private() {
    let fixture = Fixture::new(SUBNET);
    create(&fixture.store, "web").await;
    for file in ["innkeeper.db", "innkeeper.db-wal"] {
        let metadata = fs::metadata(fixture.directory.path().join(file)).expect(file);
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{file}");
    }
    let connection = Connection::open(database(fixture.directory.path())).expect("opens");
    let journal: String = connection
        .query_row("PRAGMA journal_mode", (), |row| row.get(0))
        .expect("reads");
    assert_eq!(journal, "wal");
}

#[tokio::test]
async fn close_leaves_one_file_and_the_reserve() {
    let fixture = Fixture::new(SUBNET);
    create(&fixture.store, "web").await;
    fixture.store.close().await.expect("closes");
    let mut files: Vec<_> = fs::read_dir(fixture.directory.path())
        .expect("reads")
        .map(|entry| entry.expect("entry").file_name())
        .collect();
    files.sort();
    assert_eq!(files, ["innkeeper.db", "innkeeper.db-reserve"]);
}

#[test]
fn garbage_is_reported_as_damaged() {
    let directory = tempfile::tempdir().expect("directory");
    let path = database(directory.path());
    fs::write(&path, "this was never a database ".repeat(400)).expect("writes");
    let error = refusal(&path, SUBNET);
    assert_eq!(error.code(), Code::StoreDamaged);
    assert!(error.to_string().contains("innkeeper.db"), "{error}");
    assert!(error.remedy().expect("remedy").contains(".recover"));
}

#[tokio::test]
async fn damaged_header_and_pages_are_detected() {
    let fixture = Fixture::new(SUBNET);
    for n in 0..200 {
        create(&fixture.store, &format!("guest-{n}")).await;
    }
    let path = database(fixture.directory.path());
    let roots: Vec<u32> = Connection::open(&path)
        .expect("opens")
        .prepare("SELECT rootpage FROM sqlite_schema WHERE rootpage > 1 ORDER BY rootpage")
        .and_then(|mut query| query.query_map((), |row| row.get(0))?.collect())
        .expect("reads");
    fixture.store.close().await.expect("closes");
    let sound = fs::read(&path).expect("reads");
    let page = 4096;
    assert!(
        sound.len() > 8 * page,
        "too small a file to damage its middle"
    );

    let damage_at = |start: usize, length: usize| {
        let mut bytes = sound.clone();
        bytes[start..start + length].fill(0xaa);
        fs::write(&path, bytes).expect("writes");
        refusal(&path, SUBNET).code()
    };
    assert_eq!(damage_at(0, 16), Code::StoreDamaged, "header");
    // Damage to a page that no table uses goes unnoticed, and does no harm. SQLite counts pages from 1.
    for root in [roots[0], roots[roots.len() / 2], roots[roots.len() - 1]] {
        let number = usize::try_from(root).expect("a page") - 1;
        assert_eq!(
            damage_at(number * page, page),
            Code::StoreDamaged,
            "page {number}"
        );
    }
    fs::write(&path, &sound[..sound.len() / 2 / page * page]).expect("writes");
    assert_eq!(refusal(&path, SUBNET).code(), Code::StoreDamaged, "cut off");

    fs::write(&path, &sound).expect("writes");
    let store = open(&path, SUBNET).expect("the sound file opens");
    assert_eq!(store.guests().await.expect("reads").len(), 200);
}

#[tokio::test]
async fn unknown_value_in_a_row_is_damage() {
    let fixture = Fixture::new(SUBNET);
    create(&fixture.store, "web").await;
    let connection = Connection::open(database(fixture.directory.path())).expect("opens");
    connection
        .execute("UPDATE guests SET want = 'perhaps'", ())
        .expect("writes");
    let error = fixture.store.guests().await.expect_err("damaged");
    assert_eq!(error.code(), Code::StoreDamaged);
}

#[tokio::test]
async fn newer_version_is_refused() {
    let fixture = Fixture::new(SUBNET);
    fixture.store.close().await.expect("closes");
    let path = database(fixture.directory.path());
    let connection = Connection::open(&path).expect("opens");
    connection
        .pragma_update(None, "user_version", 1000)
        .expect("writes");
    connection.close().expect("closes");
    let error = refusal(&path, SUBNET);
    assert!(
        matches!(error, StoreError::TooNew { found: 1000, .. }),
        "{error:?}"
    );
    assert_eq!(error.code(), Code::StoreTooNew);
}

#[test]
fn foreign_database_is_refused() {
    let directory = tempfile::tempdir().expect("directory");
    let path = database(directory.path());
    let connection = Connection::open(&path).expect("opens");
    connection
        .execute_batch("CREATE TABLE bookmarks (url TEXT)")
        .expect("writes");
    connection.close().expect("closes");
    assert!(matches!(refusal(&path, SUBNET), StoreError::Foreign { .. }));
}

#[tokio::test]
async fn subnet_that_moves_guests_is_refused() {
    let fixture = Fixture::new(SUBNET);
    create(&fixture.store, "web").await;
    create(&fixture.store, "gone").await;
    forget(&fixture.store, "gone").await;
    fixture.store.close().await.expect("closes");
    let path = database(fixture.directory.path());

    let error = refusal(&path, "10.200.0.0/16");
    assert!(
        matches!(error, StoreError::SubnetChanged { guests: 1, .. }),
        "{error:?}"
    );
    assert_eq!(error.code(), Code::InvalidConfig);
    assert!(
        error
            .remedy()
            .expect("remedy")
            .contains("\"10.100.0.0/16\"")
    );

    // A subnet that begins at the same address changes no guest's address.
    let store = open(&path, "10.100.0.0/24").expect("same addresses");
    assert_eq!(store.slots().await.expect("report").subnet, "10.100.0.0/24");
    forget(&store, "web").await;
    store.close().await.expect("closes");
    let store = open(&path, "10.200.0.0/16").expect("nobody has an address");
    assert_eq!(
        create(&store, "web").await.0.slot.number(),
        3,
        "the counter stays"
    );
}

#[test]
fn missing_directory_is_named() {
    let directory = tempfile::tempdir().expect("directory");
    let path = database(&directory.path().join("missing"));
    let error = open(&path, SUBNET).expect_err("no directory");
    assert_eq!(error.code(), Code::StoreFailed);
    assert!(
        error.to_string().contains("missing/innkeeper.db"),
        "{error}"
    );
}

#[tokio::test]
async fn lock_of_another_writer_times_out() {
    let fixture = Fixture::new(SUBNET);
    let other = Connection::open(database(fixture.directory.path())).expect("opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("locks");
    let refused = fixture.store.create_guest(new_guest("web"), "uid:0").await;
    assert_eq!(refused.expect_err("locked").code(), Code::StateLocked);
    other.execute_batch("ROLLBACK").expect("unlocks");
    create(&fixture.store, "web").await;
}

#[test]
fn unwritable_directory_is_reported() {
    if let Some(directory) = child_directory() {
        // The child runs as another user than the owner of the directories.
        for name in ["closed", "no-log"] {
            let error = open(&database(&directory.join(name)), SUBNET).expect_err(name);
            assert_eq!(error.code(), Code::PermissionDenied, "{name}: {error:?}");
            assert!(
                error
                    .remedy()
                    .expect("remedy")
                    .contains("Allow innkeeperd to write")
            );
        }
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
    };
    mode(directory.path(), 0o755);
    for name in ["closed", "no-log"] {
        let inner = directory.path().join(name);
        fs::create_dir(&inner).expect("directory");
        mode(&inner, 0o755);
    }
    // The file itself is writable, but its log cannot be created beside it.
    let path = database(&directory.path().join("no-log"));
    drop(open(&path, SUBNET).expect("opens"));
    mode(&path, 0o666);

    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    let test = "opening::unwritable_directory_is_reported";
    run_child(test_process(&nobody, test, directory.path()), test);
}

#[test]
fn read_only_disk_is_reported() {
    if let Some(directory) = child_directory() {
        let error = open(&database(&directory), SUBNET).expect_err("read-only");
        assert_eq!(error.code(), Code::PermissionDenied, "{error:?}");
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let test = "opening::read_only_disk_is_reported";
    run_child(
        test_process(
            &with_tmpfs(directory.path(), "ro,size=1m"),
            test,
            directory.path(),
        ),
        test,
    );
}

#[tokio::test]
async fn full_disk_refuses_records_but_not_removals() {
    let Some(directory) = child_directory() else {
        let directory = tempfile::tempdir().expect("directory");
        let test = "opening::full_disk_refuses_records_but_not_removals";
        let tmpfs = with_tmpfs(directory.path(), "size=64m");
        run_child(test_process(&tmpfs, test, directory.path()), test);
        return;
    };
    let filler = directory.join("filler");
    fill(&filler);
    let error = open(&database(&directory), SUBNET).expect_err("full at the start");
    assert_eq!(error.code(), Code::DiskFull, "{error:?}");
    fs::remove_file(&filler).expect("frees");

    let store = open(&database(&directory), SUBNET).expect("opens with space");
    let created = store.create_guest(new_guest("before"), "uid:0").await;
    let (_, operation) = created.expect("creates");
    store
        .finish_operation(operation.id, None)
        .await
        .expect("finishes");
    fill(&filler);
    let mut created = 1;
    // The log may have some space left in its last page.
    let error = loop {
        let guest = new_guest(&format!("g{created}"));
        match store.create_guest(guest, "uid:0").await {
            Ok(_) => created += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), Code::DiskFull, "{error:?}");
    assert!(error.remedy().expect("remedy").contains("Free space"));
    assert_eq!(
        guests(&store).await,
        created,
        "a refused guest was recorded"
    );
    assert_eq!(created, 1, "a guest took what belongs to removals");

    // More changes than the reserve could record without being reused.
    let name = || "before".parse().expect("name");
    for _ in 0..50 {
        for (desired, verb) in [
            (DesiredState::Stopped, Verb::Stop),
            (DesiredState::Running, Verb::Start),
        ] {
            let (_, operation) = store
                .begin_change(&name(), desired, verb, "uid:0")
                .await
                .expect("a stop needs no space");
            event(&store, operation.id).await;
        }
    }
    // A restart of the daemon changes nothing about that.
    store.close().await.expect("closes on a full disk");
    let store = open(&database(&directory), SUBNET).expect("opens on a full disk");
    let gone = store
        .begin_change(&name(), DesiredState::Absent, Verb::Destroy, "uid:0")
        .await;
    let (_, operation) = gone.expect("a removal needs no space");
    event(&store, operation.id).await;
    store.delete_guest(&name(), None).await.expect("forgets");
    assert_eq!(guests(&store).await, 0);
    created = 0;

    fs::remove_file(&filler).expect("frees");
    create(&store, "after").await;
    store.close().await.expect("closes");
    let store = open(&database(&directory), SUBNET).expect("sound after all that");
    assert_eq!(guests(&store).await, created + 1);
}

/// Appends an event of an operation and ends it.
async fn event(store: &Store, operation: OperationId) {
    let (reply, result) = tokio::sync::oneshot::channel();
    let failure = Failure::new(Code::Internal, "x".repeat(2000));
    store.append_event(
        Some(operation),
        None,
        EventKind::Failed { failure },
        |event| drop(reply.send(event)),
    );
    let event = result.await.expect("a result");
    event.expect("an event of a removal needs no space");
    let finished = store.finish_operation(operation, None).await;
    finished.expect("the end of a removal needs no space");
}

async fn guests(store: &Store) -> usize {
    store.guests().await.expect("reads").len()
}

/// Fills the disk.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).expect("creates");
    for size in [4096, 1] {
        while file.write_all(&vec![b'x'; size]).is_ok() {}
    }
}
