//! Streams that a stranger sends.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::PathBuf;

use super::Scratch;
use crate::{
    Attributes, CopyError, Entry, MAX_CHUNK, MAX_DEPTH, Owner, ProcessDir, Reason, Receiver,
    Target, Writer,
};

const PLAIN: Attributes = Attributes {
    mode: 0o644,
    seconds: 0,
    nanoseconds: 0,
};

/// Returns an unfinished stream. Each file of it contains `hostile`.
fn stream(entries: &[Entry]) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut writer = Writer::new(&mut stream).expect("begun");
    for entry in entries {
        writer.entry(entry).expect("written");
        if let Entry::File(..) = entry {
            writer.chunk(b"hostile").expect("written");
            writer.chunk(b"").expect("written");
        }
    }
    stream
}

fn file(name: &str) -> Entry {
    Entry::File(name.into(), PLAIN)
}

fn directory(name: &str) -> Entry {
    Entry::Directory(
        Some(name.into()),
        Attributes {
            mode: 0o755,
            ..PLAIN
        },
    )
}

fn link(name: &str, target: &str) -> Entry {
    Entry::Link(name.into(), PathBuf::from(target))
}

#[test]
fn names_that_are_paths_are_refused() {
    let scratch = Scratch::new();
    let absolute = scratch.path("outside/new").display().to_string();
    for name in [
        "..",
        ".",
        "../outside/new",
        "a/b",
        "/",
        "",
        "a\0b",
        &absolute,
    ] {
        for entry in [file(name), directory(name), link(name, "x")] {
            let is_nameless = name.is_empty() && matches!(entry, Entry::Directory(..));
            let inner = [directory("d"), entry.clone(), Entry::End];
            let error = scratch.receive(&stream(&inner), "to").expect_err(name);
            assert!(matches!(error, CopyError::Invalid(_)), "{name}: {error}");
            if !is_nameless {
                let outer = [entry, Entry::End];
                let error = scratch.receive(&stream(&outer), "to").expect_err(name);
                assert!(matches!(error, CopyError::Invalid(_)), "{name}: {error}");
            }
        }
    }
    scratch.check();
}

#[test]
fn links_are_never_followed() {
    let scratch = Scratch::new();
    let outside = scratch.path("outside").display().to_string();
    // A link that the stream creates, and then uses as a directory and as a file.
    for entries in [
        vec![link("x", &outside), directory("x"), file("new")],
        vec![
            directory("d"),
            link("x", &outside),
            directory("x"),
            file("file"),
        ],
    ] {
        let error = scratch
            .receive(&stream(&entries), "to")
            .expect_err("a link");
        assert_eq!(error.reason(), Reason::Refused, "{error}");
    }
    let target = format!("{outside}/file");
    let entries = [link("y", &target), file("y"), Entry::End];
    scratch.receive(&stream(&entries), "to").expect("received");
    assert_eq!(scratch.read("to/y"), "hostile", "it replaces the link");
    // Links that were in the target before.
    symlink(&outside, scratch.path("to/d/before")).expect("linked");
    symlink(&target, scratch.path("to/d/file")).expect("linked");
    let entries = [directory("d"), directory("before"), file("new")];
    let error = scratch
        .receive(&stream(&entries), "to")
        .expect_err("a link");
    assert_eq!(error.reason(), Reason::Refused, "{error}");
    let entries = [directory("d"), file("file"), Entry::Up, Entry::End];
    scratch.receive(&stream(&entries), "to").expect("received");
    assert_eq!(scratch.read("to/d/file"), "hostile");
    scratch.check();
}

#[test]
fn target_that_is_a_link_to_a_file_is_replaced() {
    let scratch = Scratch::new();
    symlink(scratch.path("outside/file"), scratch.path("to/link")).expect("linked");
    let received = scratch.receive(&stream(&[file("any"), Entry::End]), "to/link");
    received.expect("received");
    assert_eq!(scratch.read("to/link"), "hostile");
    scratch.check();
}

#[test]
fn only_requested_names_are_accepted() {
    let scratch = Scratch::new();
    let receive = |names: &[Option<&str>], entries: &[Entry]| {
        let target = Target::<ProcessDir>::resolve(&scratch.path("to"), false).expect("there");
        let names = names.iter().map(|name| name.map(OsString::from)).collect();
        Receiver::new(target, Owner::Process)
            .expecting(names)
            .receive(stream(entries).as_slice())
    };
    let nameless = Entry::Directory(None, PLAIN);
    receive(&[Some("a")], &[file("a"), Entry::End]).expect("requested");
    for entries in [
        vec![file("b"), Entry::End],
        vec![file("a"), file("b"), Entry::End],
        vec![file("a"), file("a"), Entry::End],
        vec![link(".bashrc", "x"), Entry::End],
        vec![nameless.clone(), file(".bashrc"), Entry::Up, Entry::End],
    ] {
        let error = receive(&[Some("a")], &entries).expect_err("not requested");
        assert!(matches!(error, CopyError::Invalid(_)), "{error}");
    }
    let error = receive(&[Some("a"), Some("b")], &[file("a"), Entry::End]).expect_err("one");
    assert!(matches!(error, CopyError::Interrupted), "{error}");
    assert_eq!(super::names(&scratch.path("to")), ["a"]);
    scratch.check();
}

#[test]
fn one_name_receives_one_source() {
    let scratch = Scratch::new();
    let entries = [file("a"), file("b"), Entry::End];
    let error = scratch
        .receive(&stream(&entries), "to/name")
        .expect_err("two");
    assert!(matches!(error, CopyError::Invalid(_)), "{error}");
    assert_eq!(super::names(&scratch.path("to")), ["name"]);
}

#[test]
fn privileged_modes_are_dropped() {
    let scratch = Scratch::new();
    let attributes = Attributes {
        mode: 0o7777,
        seconds: i64::MIN,
        ..PLAIN
    };
    let entries = [Entry::File("a".into(), attributes), Entry::End];
    scratch.receive(&stream(&entries), "to").expect("received");
    let mode = fs::metadata(scratch.path("to/a")).expect("there").mode();
    assert_eq!(mode & 0o7777, 0o777);
}

#[test]
fn truncated_stream_leaves_only_complete_files() {
    let scratch = Scratch::new();
    scratch.write("to/old", "complete");
    let whole = stream(&[file("first"), file("old"), Entry::End]);
    let first = stream(&[file("first")]).len();
    for length in 0..whole.len() {
        let error = scratch
            .receive(&whole[..length], "to")
            .expect_err("truncated");
        assert!(matches!(error, CopyError::Interrupted), "{length}: {error}");
        if length <= first {
            assert_eq!(scratch.read("to/old"), "complete", "{length}");
        }
        scratch.check();
    }
    // Within a directory.
    let error = scratch.receive(&stream(&[directory("d"), Entry::End]), "to");
    assert!(matches!(error, Err(CopyError::Interrupted)));
}

#[test]
fn bounds_are_checked_before_memory_is_used() {
    let scratch = Scratch::new();
    let begin = stream(&[]);
    let long_chunk = u32::try_from(MAX_CHUNK + 1).expect("small").to_be_bytes();
    let mut header = vec![b'F'];
    header.extend([0; 14]);
    let name = |length: u16, target: u16| {
        [&header[..], &length.to_be_bytes(), &target.to_be_bytes()].concat()
    };
    let nanoseconds = [&b"F"[..], &[0; 10], &[0xff; 4], &[0, 1, 0, 0], b"a"].concat();
    for (what, bytes) in [
        ("a long name", name(256, 0)),
        ("a long target", name(1, 4097)),
        ("nanoseconds", nanoseconds),
        ("an unknown kind", vec![b'H']),
        ("no directory", vec![b'U']),
        (
            "a long chunk",
            [&name(1, 0)[..], b"a", &long_chunk].concat(),
        ),
    ] {
        let bytes = [begin.as_slice(), &bytes].concat();
        let error = scratch.receive(&bytes, "to").expect_err(what);
        assert!(matches!(error, CopyError::Invalid(_)), "{what}: {error}");
        scratch.check();
    }
    let error = scratch
        .receive(b"not a stream at all", "to")
        .expect_err("no stream");
    assert!(matches!(error, CopyError::Invalid(_)), "{error}");
    let deep = vec![directory("d"); MAX_DEPTH + 1];
    let error = scratch.receive(&stream(&deep), "to").expect_err("deep");
    assert!(matches!(error, CopyError::Invalid(_)), "{error}");
}
