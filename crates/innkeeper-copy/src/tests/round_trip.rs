use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{Scratch, names};
use crate::{ProcessDir, Reason, Totals, send, source_name};

#[test]
fn tree_keeps_contents_modes_times_and_links() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.path("from/tree/sub/empty")).expect("created");
    scratch.write("from/tree/sub/file", "text");
    scratch.write("from/tree/large", &"x".repeat(200_000));
    symlink("../../outside/file", scratch.path("from/tree/link")).expect("linked");
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 500);
    let file = File::options()
        .write(true)
        .open(scratch.path("from/tree/sub/file"));
    let times = FileTimes::new().set_modified(old);
    file.expect("open").set_times(times).expect("set");
    for (name, mode) in [("from/tree/sub/file", 0o6751), ("from/tree/sub", 0o550)] {
        fs::set_permissions(scratch.path(name), Permissions::from_mode(mode)).expect("set");
    }

    let totals = scratch.copy(&["from/tree"], "to").expect("copied");
    let expected = Totals {
        files: 2,
        directories: 3,
        links: 1,
        bytes: 200_004,
    };
    assert_eq!(totals, expected);
    assert_eq!(scratch.read("to/tree/sub/file"), "text");
    assert_eq!(scratch.read("to/tree/large").len(), 200_000);
    let link = fs::read_link(scratch.path("to/tree/link")).expect("a link");
    assert_eq!(link, Path::new("../../outside/file"));
    let metadata = fs::metadata(scratch.path("to/tree/sub/file")).expect("there");
    assert_eq!(metadata.mode() & 0o7777, 0o751, "no set-user-id bit");
    assert_eq!(metadata.modified().expect("a time"), old);
    let sub = fs::metadata(scratch.path("to/tree/sub")).expect("there");
    assert_eq!(sub.mode() & 0o7777, 0o550);
    scratch.check();
}

#[test]
fn name_of_the_target_decides_as_for_cp() {
    let scratch = Scratch::new();
    scratch.write("from/a", "a");
    fs::create_dir(scratch.path("from/dir")).expect("created");
    scratch.write("from/dir/b", "b");

    scratch.copy(&["from/a"], "to/renamed").expect("copied");
    assert_eq!(scratch.read("to/renamed"), "a");
    scratch.copy(&["from/a", "from/dir"], "to").expect("copied");
    assert_eq!(scratch.read("to/dir/b"), "b");
    scratch.copy(&["from/dir"], "to/other/").expect("copied");
    assert_eq!(scratch.read("to/other/b"), "b");
    scratch.copy(&["from/dir/."], "to").expect("copied");
    assert_eq!(
        names(&scratch.path("to")),
        ["a", "b", "dir", "other", "renamed"]
    );

    let reason = |sources: &[&str], target: &str| {
        let error = scratch.copy(sources, target).expect_err(target);
        error.reason()
    };
    assert_eq!(reason(&["from/a"], "to/new/"), Reason::Refused);
    assert_eq!(reason(&["from/a"], "to/b/"), Reason::Refused);
    assert_eq!(reason(&["from/a"], "to/missing/a"), Reason::Missing);
    assert_eq!(reason(&["from/missing"], "to"), Reason::Missing);
    assert_eq!(
        reason(&["from/a"], "to/b/c"),
        Reason::Refused,
        "b is a file"
    );
    scratch.check();
}

#[test]
fn directory_merges_and_is_never_replaced_by_a_file() {
    let scratch = Scratch::new();
    for dir in ["from/dir", "to/dir", "to/file", "from/file-of-to"] {
        fs::create_dir(scratch.path(dir)).expect("created");
    }
    scratch.write("from/dir/new", "new");
    scratch.write("to/dir/kept", "kept");
    scratch.write("from/file", "file");
    scratch.write("to/file-of-to", "file");
    fs::set_permissions(scratch.path("to/dir"), Permissions::from_mode(0o711)).expect("set");

    scratch.copy(&["from/dir"], "to").expect("copied");
    assert_eq!(names(&scratch.path("to/dir")), ["kept", "new"]);
    let mode = fs::metadata(scratch.path("to/dir")).expect("there").mode();
    assert_eq!(mode & 0o777, 0o711, "an existing directory keeps its mode");

    let error = scratch.copy(&["from/file"], "to").expect_err("a directory");
    assert!(
        error
            .to_string()
            .ends_with("to/file' is a directory; a file cannot replace it"),
        "{error}"
    );
    let error = scratch
        .copy(&["from/file-of-to"], "to")
        .expect_err("a file");
    assert_eq!(error.reason(), Reason::Refused);
    assert_eq!(scratch.read("to/file-of-to"), "file");
    scratch.check();
}

#[test]
fn special_files_are_reported_and_skipped() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("from/dir")).expect("created");
    let socket = scratch.path("from/dir/socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
    let mut skipped = Vec::new();
    let mut stream = Vec::new();
    let sources = [scratch.path("from/dir")];
    send::<ProcessDir>(&mut stream, &sources, &mut |path| {
        skipped.push(path.to_owned());
    })
    .expect("sent");
    assert_eq!(skipped, [socket]);
    let error = scratch.send(&["from/dir/socket"]).expect_err("a socket");
    assert_eq!(error.reason(), Reason::Refused);
}

#[test]
fn name_of_a_source_is_its_last_component() {
    for (path, name) in [
        ("a", Some("a")),
        ("/x/a/", Some("a")),
        ("/x/a/.", None),
        ("x/..", None),
        (".", None),
        ("/", None),
    ] {
        assert_eq!(
            source_name(Path::new(path)).as_deref(),
            name.map(str::as_ref),
            "{path}"
        );
    }
}

#[test]
fn reason_survives_as_an_exit_status() {
    for reason in [
        Reason::Missing,
        Reason::Full,
        Reason::Interrupted,
        Reason::Other,
    ] {
        assert_eq!(Reason::of_status(reason.status().into()), Some(reason));
    }
    assert_eq!(Reason::of_status(127), None);
}
