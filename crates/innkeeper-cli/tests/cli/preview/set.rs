use axum::Router;
use axum::routing::post;
use innkeeper_model::preview::Visibility;
use innkeeper_model::preview::api::VisibilityReport;
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

#[test]
fn visibility_is_requested() {
    let answer = post(async |body: String| {
        let visibility = match body.as_str() {
            r#"{"visibility":"private"}"# => Visibility::Private,
            r#"{"visibility":null}"# => Visibility::Public,
            _ => panic!("{body}"),
        };
        axum::Json(VisibilityReport {
            visibility,
            host: Visibility::Public,
            file: None,
            command: Some(visibility),
            closed: false,
        })
    });
    let fake = Fake::new(Router::new().route("/v1/previews/web-7/visibility", answer));
    let run = fake.preview(&["set", "web-7", "--visibility", "private"]);
    assert_snapshot!(run.transcript(), @r"
    status: 0
    --- stdout
    [OK] Preview web-7 is private: its URLs serve people who may read the repository.
    --- stderr
    ");
    let run = fake.preview(&["set", "web-7", "--visibility", "default"]);
    assert_snapshot!(run.transcript(), @r"
    status: 0
    --- stdout
    [OK] Preview web-7 is public: its URLs serve everybody.
    --- stderr
    ");
    for wrong in [
        &["set", "web-7"][..],
        &["set", "web-7", "--visibility", "secret"],
        &["set", "web-7", "--visibility", "team", "--idle", "pause"],
    ] {
        let run = fake.preview(wrong);
        assert!(run.transcript().starts_with("status: 2"), "{wrong:?}");
    }
}
