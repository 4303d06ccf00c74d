use axum::Router;
use axum::routing::get;
use insta::assert_snapshot;

use crate::fake::Fake;

const LOG: &str = r#"{"time":"2026-11-20T10:00:00Z","source":"innkeeper","attempt":2,"line":"Attempt 2 of 1a1a1a1 begins."}
{"time":"2026-11-20T10:00:01.5Z","source":"innkeeper","line":"1a1a1a1: setting up."}
{"time":"2026-11-20T10:00:02Z","source":"setup.service","line":"added 12 packages\nfound 0 vulnerabilities"}
{"source":"console","line":"listening on 3000"}
"#;

fn fake() -> Fake {
    Fake::new(Router::new().route("/v1/previews/web-7/logs", get(async move || LOG)))
}

#[test]
fn lines_have_time_and_source() {
    let fake = fake();
    assert_snapshot!(fake.preview(&["logs", "web-7", "--follow", "-n", "5"]).ok(), @r"
    --- 2026-11-20T10:00:00Z Attempt 2 of 1a1a1a1 begins.
    2026-11-20T10:00:01Z innkeeper | 1a1a1a1: setting up.
    2026-11-20T10:00:02Z setup | added 12 packages
    2026-11-20T10:00:02Z setup | found 0 vulnerabilities
                         console | listening on 3000
    ");
    fake.preview(&["logs", "web-7"]).ok();
    let selection = [
        "--since",
        "2026-11-20T10:00:00Z",
        "--service",
        "app",
        "--attempt",
        "2",
    ];
    fake.preview(&[&["logs", "web-7"], &selection[..]].concat())
        .ok();
    assert_eq!(
        fake.requests(),
        [
            "GET /v1/previews/web-7/logs?lines=5&follow=true",
            "GET /v1/previews/web-7/logs?lines=100&follow=false",
            "GET /v1/previews/web-7/logs?lines=100&follow=false&since=2026-11-20T10:00:00Z&service=app&attempt=2"
        ]
    );
}

#[test]
fn json_has_one_value_per_line() {
    assert_snapshot!(fake().preview(&["logs", "web-7", "--json"]).ok(), @r#"
    {"time":"2026-11-20T10:00:00Z","source":"innkeeper","attempt":2,"line":"Attempt 2 of 1a1a1a1 begins."}
    {"time":"2026-11-20T10:00:01.5Z","source":"innkeeper","line":"1a1a1a1: setting up."}
    {"time":"2026-11-20T10:00:02Z","source":"setup.service","line":"added 12 packages\nfound 0 vulnerabilities"}
    {"source":"console","line":"listening on 3000"}
    "#);
}

#[test]
fn values_that_select_nothing_are_refused() {
    let fake = fake();
    for [option, value] in [
        ["--attempt", "0"],
        ["--attempt", "two"],
        ["--since", "tomorrow"],
        ["--since", "9999-01-01T00:00:00Z"],
        ["--service", "a b"],
        ["--service", ""],
        ["--lines", "-1"],
    ] {
        let refused = fake.preview(&["logs", "web-7", &format!("{option}={value}")]);
        assert_eq!(refused.status, 2, "{option} {value}");
        assert!(refused.stderr.contains(option), "{}", refused.stderr);
    }
    assert_eq!(fake.requests(), [""; 0]);
}
