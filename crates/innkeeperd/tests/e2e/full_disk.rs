//! Operations on a disk without free space.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::mount::{MsFlags, mount};

use crate::support::{Fixture, Sandbox, closure};
use crate::validation::{assert_failure, create_failure};

#[test]
fn a_full_disk_rejects_only_new_guests() {
    let closure = closure(Fixture::Agent);
    let mut sandbox = Sandbox::new();
    small_disk(&sandbox.state(), "48m");
    sandbox.configure("[storage]\nmin_free = '16M'");
    let _daemon = sandbox.start();
    let client = sandbox.client();
    // Stopped, so that its files do not change.
    client.create("first", &closure);
    client.change("first", "stop");
    let before = sandbox.traces();
    fs::write(sandbox.state().join("filler"), vec![0; 40 << 20]).expect("written");
    let failure = create_failure(
        &client,
        &format!(r#"{{"name":"web","closure":"{closure}"}}"#),
    );
    assert_failure(
        &failure,
        "disk_full",
        &sandbox.state().display().to_string(),
    );
    fs::remove_file(sandbox.state().join("filler")).expect("removed");
    before.assert_same(&sandbox.traces(), "after the refusal");
    client.create("web", &closure);
    client.destroy("web");
    client.destroy("first");
}

#[test]
fn a_destroy_works_on_a_full_disk() {
    let closure = closure(Fixture::Agent);
    let mut sandbox = Sandbox::new();
    small_disk(&sandbox.state(), "48m");
    sandbox.configure("[storage]\nmin_free = '16M'");
    let _daemon = sandbox.start();
    let client = sandbox.client();
    let before = sandbox.traces();
    client.create("web", &closure);
    // The guest itself fills the disk.
    let hog = sandbox.state().join("guests/web/rootfs/hog");
    let mut file = fs::File::create(&hog).expect("made");
    while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    let failure = create_failure(
        &client,
        &format!(r#"{{"name":"other","closure":"{closure}"}}"#),
    );
    assert_failure(&failure, "disk_full", "state");
    client.change("web", "stop");
    client.destroy("web");
    before.assert_same(&sandbox.traces(), "afterwards");
}

#[test]
fn a_destroy_works_without_a_free_inode() {
    let closure = closure(Fixture::Agent);
    let mut sandbox = Sandbox::new();
    small_disk(&sandbox.state(), "48m,nr_inodes=2000");
    sandbox.configure("[storage]\nmin_free = '16M'");
    let _daemon = sandbox.start();
    let client = sandbox.client();
    let before = sandbox.traces();
    client.create("web", &closure);
    let folder = sandbox.state().join("guests/web/rootfs/many");
    fs::create_dir(&folder).expect("made");
    let mut number = 0;
    while fs::write(folder.join(number.to_string()), "").is_ok() {
        number += 1;
    }
    client.change("web", "stop");
    client.destroy("web");
    before.assert_same(&sandbox.traces(), "afterwards");
}

#[test]
fn a_rollback_and_gc_work_on_a_full_disk() {
    let closure = closure(Fixture::Agent);
    let mut sandbox = Sandbox::new();
    small_disk(&sandbox.state(), "48m");
    sandbox.configure("[storage]\nmin_free = '16M'");
    // A fake of nspawn that fills the disk and fails.
    let (filler, nspawn) = (
        sandbox.state().join("filler"),
        sandbox.path().join("nspawn"),
    );
    let script = format!("#!/bin/sh\ncat /dev/zero > {}\nexit 1\n", filler.display());
    fs::write(&nspawn, script).expect("written");
    fs::set_permissions(&nspawn, fs::Permissions::from_mode(0o755)).expect("set");
    let _daemon = sandbox.start_with(&[(
        "INNKEEPER_SUPERVISOR_NSPAWN",
        nspawn.to_str().expect("text"),
    )]);
    let before = sandbox.traces();
    let orphan = sandbox.state().join("guests/ghost/rootfs/etc");
    fs::create_dir_all(&orphan).expect("made");
    let failure = create_failure(
        &sandbox.client(),
        &format!(r#"{{"name":"web","closure":"{closure}"}}"#),
    );
    assert!(
        fs::metadata(&filler).expect("made").len() > 0,
        "{failure:?}"
    );
    assert!(!sandbox.state().join("guests/web").exists(), "{failure:?}");
    let swept = sandbox.program("innkeeper", &["gc"], b"");
    assert!(swept.status.success(), "{swept:?}");
    assert!(!orphan.exists(), "{swept:?}");
    fs::remove_file(&filler).expect("removed");
    before.assert_same(&sandbox.traces(), "afterwards");
}

pub(crate) fn small_disk(path: &Path, size: &str) {
    fs::create_dir_all(path).expect("made");
    let options = format!("size={size},mode=0700");
    mount(
        Some("tmpfs"),
        path,
        Some("tmpfs"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .expect("mounted");
}
