use axum::Router;
use axum::body::Body;
use axum::routing::get;
use futures_util::stream;
use innkeeper_model::{Code, Failure};
use insta::assert_snapshot;

use crate::fake::{Fake, answer, refuse};
use crate::samples::guest;

/// A console in pieces that do not respect lines, nor UTF-8.
fn fake() -> Fake {
    let pieces = [b"first line\r\nsec".as_slice(), b"ond \xff line\nlast"];
    let body = move || Body::from_stream(stream::iter(pieces.map(Ok::<_, std::io::Error>)));
    Fake::new(Router::new().route("/v1/guests/web/logs", get(async move || body())))
}

#[test]
fn the_consoles_bytes_come_as_they_are() {
    let fake = fake();
    let output = fake
        .command("agent", &["logs", "web", "-n", "5", "-f"])
        .output()
        .expect("it runs");
    assert_eq!(output.stdout, b"first line\r\nsecond \xff line\nlast");
    // Then whether the kernel has killed processes, which is in no console.
    let calls = [
        "GET /v1/guests/web/logs?lines=5&follow=true",
        "GET /v1/guests/web",
    ];
    assert_eq!(fake.seen(), calls);
}

#[test]
fn programs_get_one_value_for_each_line() {
    assert_snapshot!(fake().agent(&["logs", "web", "--json"]).ok(), @r#"
    {"line":"first line"}
    {"line":"second � line"}
    {"line":"last"}
    "#);
}

#[test]
fn the_caller_may_have_meant_another() {
    let missing = Failure::new(Code::GuestNotFound, "no guest is named 'wbe'");
    let fake = Fake::new(
        Router::new()
            .route("/v1/guests", answer(&[guest("web", 1)]))
            .route("/v1/guests/wbe/logs", refuse(missing)),
    );
    assert_snapshot!(fake.agent(&["logs", "wbe"]).whole(), @r"
    status: 3
    --- stdout
    --- stderr
    [ERROR] no guest is named 'wbe'
            Hint: Did you mean 'web'?
    ");
}
