//! Live changes of a page.

use std::io::Read as _;

use crate::support::{Program, read_until, status};

const PREVIEW: &str = "X-Innkeeper-Preview: web-7";

#[test]
fn changes_arrive_until_the_app_is_live() {
    let program = Program::start("");
    program.put("web-7", &status("building", &["one"]));
    let mut stream = program.send("/.innkeeper/events", &[PREVIEW]);
    let first = read_until(&mut stream, "event: status");
    assert!(
        first
            .to_ascii_lowercase()
            .contains("content-type: text/event-stream")
    );
    assert!(first.contains(r#"data: [[1,"10:00:00","one"]]"#) && first.contains("id: 1"));
    program.put("web-7", &status("setting-up", &["one", "two <b>"]));
    let second = read_until(&mut stream, "Setting up the app");
    assert!(second.contains(r#"data: [[2,"10:00:00","two <b>"]]"#) && !second.contains("one"));
    program.put("web-7", &status("live", &[]));
    read_until(&mut stream, "event: over");
    stream
        .read_to_end(&mut Vec::new())
        .expect("the stream ends");
}

#[test]
fn a_browser_continues_after_the_last_line_that_it_has() {
    let program = Program::start("");
    program.put("web-7", &status("building", &["one", "two", "three"]));
    let mut stream = program.send("/.innkeeper/events?after=2", &[PREVIEW]);
    assert!(!read_until(&mut stream, "three").contains("two"));
    // The last event that arrived is newer than the page.
    let headers = [PREVIEW, "Last-Event-ID: 3"];
    let mut stream = program.send("/.innkeeper/events?after=2", &headers);
    assert!(!read_until(&mut stream, "event: status").contains("three"));
    // The log began again.
    program.put("web-7", &status("building", &["new"]));
    let mut stream = program.send("/.innkeeper/events?after=9", &[PREVIEW]);
    read_until(&mut stream, "new");
}

#[test]
fn removed_preview_ends_its_streams() {
    let program = Program::start("");
    program.put("web-7", &status("closing", &[]));
    let mut stream = program.send("/.innkeeper/events", &[PREVIEW]);
    read_until(&mut stream, "Being removed");
    program.remove("web-7");
    read_until(&mut stream, "event: over");
}

#[test]
fn streams_are_limited_by_address_and_in_total() {
    let program = Program::start("max_connections = 9\nmax_streams_per_address = 2");
    program.put("web-7", &status("building", &[]));
    // Only the last entry comes from Caddy.
    let open = |address: &str| {
        let forwarded = format!("X-Forwarded-For: 192.0.2.9, {address}");
        program.send("/.innkeeper/events", &[PREVIEW, &forwarded])
    };
    let mut streams: Vec<_> = (0..2).map(|_| open("192.0.2.1")).collect();
    for stream in &mut streams {
        read_until(stream, "event: status");
    }
    let refused = read_until(&mut open("192.0.2.1"), "\r\n\r\n");
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    let mut third = open("192.0.2.2");
    read_until(&mut third, "event: status");
    // A third of all connections.
    let refused = read_until(&mut open("192.0.2.3"), "\r\n\r\n");
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    // A page is served nevertheless.
    assert_eq!(program.get("/", &[PREVIEW]).status, 503);
    // A visitor who leaves makes room.
    drop(third);
    loop {
        let seen = read_until(&mut open("192.0.2.3"), "\r\n\r\n");
        if seen.starts_with("HTTP/1.1 200") {
            break;
        }
    }
}

#[test]
fn shutdown_ends_streams_at_once() {
    let mut program = Program::start("");
    program.put("web-7", &status("building", &[]));
    let mut stream = program.send("/.innkeeper/events", &[PREVIEW]);
    read_until(&mut stream, "event: status");
    program.terminate();
    stream
        .read_to_end(&mut Vec::new())
        .expect("the stream ends");
    assert!(program.child.wait().expect("it ends").success());
}
