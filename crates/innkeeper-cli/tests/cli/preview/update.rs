use axum::Router;
use innkeeper_model::preview::PreviewState;
use insta::assert_snapshot;

use crate::fake::{Fake, accept_preview, fail, journal, respond, respond_in_turn};
use crate::samples::{no_preview, note, preview};

#[test]
fn update_waits_for_the_new_commit() {
    let views = [PreviewState::Updating, PreviewState::Live].map(|state| preview("web-7", state));
    let journal = journal([note(1, "Commit 2b2b2b2 is set up.")], []);
    let fake = Fake::new(
        Router::new()
            .route("/v1/previews/web-7", respond_in_turn(views.map(Ok)))
            .route("/v1/previews/web-7/update", accept_preview("web-7"))
            .route("/v1/events", journal),
    );
    assert_snapshot!(fake.preview(&["update", "web-7"]).transcript(), @r"
    status: 0
    --- stdout
    [INFO] Updating preview web-7.
    [INFO] Commit 2b2b2b2 is set up.
    [OK] Preview web-7 is live after N ms.
    https://web-7.preview.example.com
    --- stderr
    ");
    assert_eq!(fake.requests()[0], "POST /v1/previews/web-7/update");
}

#[test]
fn mistyped_slug_gets_a_suggestion() {
    let fake = Fake::new(
        Router::new()
            .route(
                "/v1/previews",
                respond(&[preview("web-7", PreviewState::Live)]),
            )
            .route("/v1/previews/wbe-7/update", fail(no_preview("wbe-7"))),
    );
    assert_snapshot!(fake.preview(&["update", "wbe-7", "--no-wait"]).transcript(), @r"
    status: 3
    --- stdout
    --- stderr
    [ERROR] no preview is named 'wbe-7'
            Hint: Did you mean 'web-7'?
    ");
}
