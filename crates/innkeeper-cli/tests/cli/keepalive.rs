use axum::Router;
use axum::routing::post;
use insta::assert_snapshot;

use crate::explain::report;
use crate::fake::Fake;

#[test]
fn time_is_requested_in_seconds() {
    let answer = post(async |body: String| {
        assert_eq!(body, r#"{"seconds":5400}"#);
        axum::Json(report())
    });
    let fake = Fake::new(Router::new().route("/v1/guests/web/keepalive", answer));
    let run = fake.agent(&["keepalive", "web", "--for", "90m"]);
    assert_snapshot!(run.transcript(), @r"
    status: 0
    --- stdout
    [OK] Agent web stays awake for 5400 s.
    --- stderr
    ");
}

#[test]
fn time_is_at_most_a_day() {
    let fake = Fake::new(Router::new());
    for time in ["25h", "-1s", "soon"] {
        let run = fake.agent(&["keepalive", "web", "--for", time]);
        assert!(run.transcript().starts_with("status: 2"), "{time}");
    }
}
