use axum::http::StatusCode;
use axum::routing::delete;
use axum::{Json, Router};
use innkeeper_model::preview::PreviewState;
use insta::assert_snapshot;

use crate::fake::{Fake, answers, journal};
use crate::samples::{no_preview, note, preview};

/// A preview that goes once it was asked to.
fn fake() -> Fake {
    let closing = preview("web-7", PreviewState::Closing);
    let looks = answers([Ok(closing), Err(no_preview("web-7"))]);
    let journal = journal(
        [note(1, "The route is gone.")],
        [note(2, "The database is gone.")],
    );
    let accepted = Json(serde_json::json!({ "slug": "web-7" }));
    let delete = delete(async move || (StatusCode::ACCEPTED, accepted));
    Fake::new(
        Router::new()
            .route("/v1/previews/web-7", delete.merge(looks))
            .route("/v1/events", journal),
    )
}

#[test]
fn it_returns_when_nothing_is_left() {
    assert_snapshot!(fake().preview(&["destroy", "web-7"]).whole(), @r"
    status: 0
    --- stdout
    [INFO] Destroying preview web-7.
    [INFO] The route is gone.
    [INFO] The database is gone.
    [OK] Preview web-7 is gone after N ms.
    --- stderr
    ");
}

#[test]
fn programs_get_one_value() {
    assert_snapshot!(fake().preview(&["destroy", "web-7", "--json"]).whole(), @r#"
    status: 0
    --- stdout
    {"elapsed_ms":0,"slug":"web-7"}
    --- stderr
    "#);
}

#[test]
fn nobody_has_to_wait() {
    let fake = fake();
    assert_snapshot!(fake.preview(&["destroy", "web-7", "--no-wait"]).ok(), @"[OK] Accepted for preview web-7; `preview list` shows how far it is.");
    assert_eq!(fake.seen(), ["DELETE /v1/previews/web-7"]);
}
