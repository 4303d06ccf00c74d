use axum::Router;
use innkeeper_model::Verb;
use insta::assert_snapshot;

use crate::fake::{Fake, Stream, accept, events, respond};
use crate::samples::{accepted, finished, guest};

#[test]
fn pause_waits_for_the_guest() {
    let events = events([Stream::Ends(vec![accepted(1, Verb::Pause), finished(2)])]);
    let fake = Fake::new(
        Router::new()
            .route("/v1/previews/web-7/pause", accept(7, Some("web-7")))
            .route("/v1/previews/web-7/guest", respond(&guest("web-7", 1)))
            .route("/v1/events", events),
    );
    assert_snapshot!(fake.preview(&["pause", "web-7"]).transcript(), @r"
    status: 0
    --- stdout
    [INFO] Pausing preview web-7.
    [OK] The guest of preview web-7 is paused after N ms.
    --- stderr
    ");
}
