use axum::Router;
use axum::routing::post;
use insta::assert_snapshot;

use crate::explain::report;
use crate::fake::Fake;

#[test]
fn policy_is_requested() {
    let answer = post(async |body: String| {
        assert_eq!(body, r#"{"idle_policy":"always_on"}"#);
        axum::Json(report())
    });
    let fake = Fake::new(Router::new().route("/v1/previews/web-7/idle", answer));
    let run = fake.preview(&["set", "web-7", "--idle", "always-on"]);
    assert_snapshot!(run.transcript(), @r"
    status: 0
    --- stdout
    [OK] Preview web-7 has the idle policy always-on.
    --- stderr
    ");
    let run = fake.preview(&["set", "web-7", "--idle", "never"]);
    assert!(run.transcript().starts_with("status: 2"));
}
