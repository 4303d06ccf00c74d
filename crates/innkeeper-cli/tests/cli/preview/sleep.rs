use axum::Router;
use innkeeper_model::Verb;
use insta::assert_snapshot;

use crate::fake::{Fake, Stream, accept, events, respond};
use crate::samples::{accepted, finished, guest};

#[test]
fn sleep_waits_for_the_guest() {
    let events = events([Stream::Ends(vec![accepted(1, Verb::Sleep), finished(2)])]);
    let fake = Fake::new(
        Router::new()
            .route("/v1/previews/web-7/sleep", accept(7, Some("web-7")))
            .route("/v1/previews/web-7/guest", respond(&guest("web-7", 1)))
            .route("/v1/events", events),
    );
    assert_snapshot!(fake.preview(&["sleep", "web-7"]).transcript(), @r"
    status: 0
    --- stdout
    [INFO] Putting preview web-7 to sleep.
    [OK] The guest of preview web-7 is asleep after N ms.
    --- stderr
    ");
}
