use axum::Router;
use axum::body::Body;
use axum::routing::get;
use futures_util::stream;
use innkeeper_model::{Code, Failure};
use insta::assert_snapshot;

use crate::fake::{Fake, fail, respond};
use crate::samples::guest;

/// Creates a daemon with a log in chunks that split lines, with invalid UTF-8.
fn fake() -> Fake {
    let pieces = [b"first line\r\nsec".as_slice(), b"ond \xff line\nlast"];
    let body = move || Body::from_stream(stream::iter(pieces.map(Ok::<_, std::io::Error>)));
    Fake::new(Router::new().route("/v1/guests/web/logs", get(async move || body())))
}

#[test]
fn console_is_printed_unchanged() {
    let fake = fake();
    let output = fake
        .command("agent", &["logs", "web", "-n", "5", "-f"])
        .output()
        .expect("it runs");
    assert_eq!(output.stdout, b"first line\r\nsecond \xff line\nlast");
    // The second request is for OOM kills, which are not in the console.
    let calls = [
        "GET /v1/guests/web/logs?lines=5&follow=true",
        "GET /v1/guests/web",
    ];
    assert_eq!(fake.requests(), calls);
}

#[test]
fn json_has_one_value_per_line() {
    assert_snapshot!(fake().agent(&["logs", "web", "--json"]).ok(), @r#"
    {"line":"first line"}
    {"line":"second � line"}
    {"line":"last"}
    "#);
}

#[test]
fn mistyped_name_gets_a_suggestion() {
    let missing = Failure::new(Code::GuestNotFound, "no guest is named 'wbe'");
    let fake = Fake::new(
        Router::new()
            .route("/v1/guests", respond(&[guest("web", 1)]))
            .route("/v1/guests/wbe/logs", fail(missing)),
    );
    assert_snapshot!(fake.agent(&["logs", "wbe"]).transcript(), @r"
    status: 3
    --- stdout
    --- stderr
    [ERROR] no guest is named 'wbe'
            Hint: Did you mean 'web'?
    ");
}
