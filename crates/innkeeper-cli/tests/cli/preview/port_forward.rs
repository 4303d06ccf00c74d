use axum::Router;
use innkeeper_model::preview::PreviewState;

use crate::fake::{Fake, fail, respond};
use crate::samples::{no_preview, preview};

#[test]
fn mistyped_slug_fails_before_the_first_connection() {
    let live = preview("web-7", PreviewState::Live);
    let fake = Fake::new(
        Router::new()
            .route("/v1/previews", respond(&[&live]))
            .route("/v1/previews/wbe-7", fail(no_preview("wbe-7"))),
    );
    let run = fake.preview(&["port-forward", "wbe-7", "0:80"]);
    assert!(
        run.status == 3 && run.stderr.contains("Did you mean 'web-7'?"),
        "{run:?}"
    );
}
