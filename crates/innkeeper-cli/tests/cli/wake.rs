use axum::Router;
use innkeeper_model::{GuestState, Level, Verb};
use insta::assert_snapshot;

use crate::fake::{Fake, Stream, accept, events, respond};
use crate::samples::{accepted, finished, guest};

fn fake() -> Fake {
    let mut view = guest("web", 1);
    (view.guest.level, view.state) = (Level::Awake, GuestState::Running);
    let events = events([Stream::Ends(vec![accepted(1, Verb::Wake), finished(2)])]);
    Fake::new(
        Router::new()
            .route("/v1/guests/web", respond(&view))
            .route("/v1/guests/web/wake", accept(7, Some("web")))
            .route("/v1/events", events),
    )
}

#[test]
fn result_is_printed() {
    assert_snapshot!(fake().agent(&["wake", "web"]).transcript(), @r"
    status: 0
    --- stdout
    [INFO] Waking agent web.
    [OK] Agent web is awake after N ms.
    --- stderr
    ");
}

#[test]
fn json_has_the_level() {
    let run = fake().agent(&["wake", "web", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&run.ok()).expect("one value");
    let expected = ["awake", "running"];
    assert_eq!([&value["level"], &value["state"]], expected);
}
