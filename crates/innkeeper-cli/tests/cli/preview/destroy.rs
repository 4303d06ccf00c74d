use axum::http::StatusCode;
use axum::routing::delete;
use axum::{Json, Router};
use innkeeper_model::preview::PreviewState;
use insta::assert_snapshot;

use crate::fake::{Fake, journal, respond_in_turn};
use crate::samples::{no_preview, note, preview};

/// Creates a daemon whose preview is removed on request.
fn fake() -> Fake {
    let closing = preview("web-7", PreviewState::Closing);
    let responses = respond_in_turn([Ok(closing), Err(no_preview("web-7"))]);
    let journal = journal(
        [note(1, "The route is gone.")],
        [note(2, "The database is gone.")],
    );
    let accepted = Json(serde_json::json!({ "slug": "web-7" }));
    let delete = delete(async move || (StatusCode::ACCEPTED, accepted));
    Fake::new(
        Router::new()
            .route("/v1/previews/web-7", delete.merge(responses))
            .route("/v1/events", journal),
    )
}

#[test]
fn destroy_waits_until_the_preview_is_gone() {
    assert_snapshot!(fake().preview(&["destroy", "web-7"]).transcript(), @r"
    status: 0
    --- stdout
    [INFO] Destroying preview web-7.
    [INFO] The route is gone.
    [INFO] The database is gone.
    [OK] Preview web-7 destroyed in N ms.
    --- stderr
    ");
}

#[test]
fn json_has_the_slug() {
    assert_snapshot!(fake().preview(&["destroy", "web-7", "--json"]).transcript(), @r#"
    status: 0
    --- stdout
    {"elapsed_ms":0,"slug":"web-7"}
    --- stderr
    "#);
}

#[test]
fn no_wait_returns_after_acceptance() {
    let fake = fake();
    assert_snapshot!(fake.preview(&["destroy", "web-7", "--no-wait"]).ok(), @"[OK] Request for preview web-7 accepted; `preview list` shows its state.");
    assert_eq!(fake.requests(), ["DELETE /v1/previews/web-7"]);
}
