//! Sets of former releases.

use std::os::unix::fs::{PermissionsExt, symlink};

use rusqlite::Connection;

use super::*;

/// The manifest of a set of version 1. The digest of the files was computed with the rules of that version.
const MANIFEST: &str = r#"{
  "version": 1,
  "innkeeper": "0.1.0",
  "host": "old",
  "created_at": "2026-11-30T15:50:00Z",
  "store": STORE,
  "guests": [
    {
      "name": "wide",
      "kind": "agent",
      "slot": 6,
      "source": { "flake": "/srv/fleet#agent" },
      "closure": "/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest",
      "files": {
        "sha256": "aa82da494337ced65ed6480260707311381083d246160110add1fbafcd792011",
        "bytes": 1048581
      }
    }
  ],
  "databases": [],
  "closures": false,
  "missing": []
}
"#;

/// The database of that version.
const STORE: &str = include_str!("../../../../innkeeper-store/tests/promises/dumps/version-21.sql");

/// Writes the set to a directory.
fn write_set(directory: &Path) -> Set {
    let set = Set(directory.join(SET));
    let files = set.guests().join("wide/rootfs");
    fs::create_dir_all(files.join("home")).expect("directories");
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
    };
    fs::write(files.join("home/notes"), "kept\n").expect("file");
    symlink("/etc/shadow", files.join("home/link")).expect("link");
    let sparse = File::create(files.join("sparse")).expect("file");
    sparse.set_len(1 << 20).expect("length");
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"data", 8192).expect("data");
    for (path, bits) in [
        ("", 0o755),
        ("home", 0o755),
        ("home/notes", 0o4751),
        ("sparse", 0o600),
    ] {
        mode(&files.join(path), bits);
    }
    mode(directory, 0o700);
    mode(&set.0, 0o700);
    let store = Connection::open(set.store()).expect("database");
    store.execute_batch(STORE).expect("restores");
    store.close().expect("closes");
    let digest: Digest = tree::digest_file(&set.store()).expect("digest").into();
    let digest = serde_json::to_string(&digest).expect("JSON");
    fs::write(set.manifest(), MANIFEST.replace("STORE", &digest)).expect("manifest");
    set
}

#[test]
fn set_of_version_1_is_accepted_and_compared() {
    if !rustix::process::geteuid().is_root() {
        eprintln!(
            "INNKEEPER-NOT-RUN: set_of_version_1_is_accepted_and_compared: needs root: digests cover owners"
        );
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let set = write_set(directory.path());
    let copy = directory.path().join("copy.db");
    let choose_all = || choose(directory.path(), &[], &copy);
    let chosen = choose_all().expect("accepted");
    let names: Vec<_> = chosen.guests.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["wide"]);
    assert_eq!(chosen.guests[0].slot.number(), 6);
    assert_eq!(chosen.owners, FileOwners::Guest);
    remove_copy(&copy).expect("removes");

    // Its digests do not cover extended attributes.
    let notes = set.files(&chosen.guests[0].name).join("home/notes");
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&notes, "user.note", b"one", flags).expect("attribute");
    choose_all().expect("accepted");
    remove_copy(&copy).expect("removes");

    fs::write(&notes, "lost\n").expect("file");
    let error = choose_all().map(drop).expect_err("damaged");
    assert!(matches!(error, BackupError::Damaged { .. }), "{error}");
}
