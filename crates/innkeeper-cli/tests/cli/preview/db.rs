use axum::Router;
use innkeeper_model::preview::PreviewState;
use insta::assert_snapshot;

use crate::fake::{Fake, accept_preview, fail, journal, respond};
use crate::samples::{no_preview, preview};

fn fake() -> Fake {
    let live = preview("web-7", PreviewState::Live);
    Fake::new(
        Router::new()
            .route("/v1/previews", respond(&[&live]))
            .route("/v1/previews/web-7", respond(&live))
            .route(
                "/v1/previews/wbe-7/database/reset",
                fail(no_preview("wbe-7")),
            )
            .route("/v1/previews/web-7/database/reset", accept_preview("web-7"))
            .route("/v1/events", journal([], [])),
    )
}

#[test]
fn reset_in_a_script_does_not_prompt() {
    let fake = fake();
    assert_snapshot!(fake.preview(&["db", "reset", "web-7"]).transcript(), @r"
    status: 0
    --- stdout
    [INFO] Resetting the database of preview web-7.
    [OK] Preview web-7 is live after N ms.
    https://web-7.preview.example.com
    --- stderr
    ");
    assert_eq!(fake.requests()[0], "POST /v1/previews/web-7/database/reset");
}

#[test]
fn mistyped_slug_gets_a_suggestion() {
    let run = fake().preview(&["db", "reset", "wbe-7", "--json"]);
    assert_eq!(run.status, 3);
    assert_eq!(
        run.failure().remedy.as_deref(),
        Some("Did you mean 'web-7'?")
    );
}
