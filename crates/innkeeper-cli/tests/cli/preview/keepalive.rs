use axum::Router;
use axum::routing::post;
use insta::assert_snapshot;

use crate::explain::report;
use crate::fake::Fake;

#[test]
fn time_is_requested_in_seconds() {
    let answer = post(async |body: String| {
        assert_eq!(body, r#"{"seconds":0}"#);
        axum::Json(report())
    });
    let fake = Fake::new(Router::new().route("/v1/previews/web-7/keepalive", answer));
    let run = fake.preview(&["keepalive", "web-7", "--for", "0s"]);
    assert_snapshot!(run.transcript(), @r"
    status: 0
    --- stdout
    [OK] Preview web-7 has no keepalive.
    --- stderr
    ");
}
