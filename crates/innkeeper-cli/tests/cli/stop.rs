use axum::Router;
use innkeeper_model::{GuestState, Verb};
use insta::assert_snapshot;

use crate::fake::{Fake, Stream, accept, events, respond};
use crate::samples::{accepted, finished, guest};

fn fake() -> Fake {
    let mut stopped = guest("web", 1);
    stopped.state = GuestState::Stopped;
    Fake::new(
        Router::new()
            .route("/v1/guests/web", respond(&stopped))
            .route("/v1/guests/web/stop", accept(7, Some("web")))
            .route(
                "/v1/events",
                events([Stream::Ends(vec![accepted(1, Verb::Stop), finished(2)])]),
            ),
    )
}

#[test]
fn result_is_printed() {
    assert_snapshot!(fake().agent(&["stop", "web"]).transcript(), @r"
    status: 0
    --- stdout
    [INFO] Stopping agent web.
    [OK] Agent web stopped in N ms.
    --- stderr
    ");
}

#[test]
fn json_has_the_guest() {
    let run = fake().agent(&["stop", "web", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&run.ok()).expect("one value");
    assert_eq!(value["state"], "stopped");
}
