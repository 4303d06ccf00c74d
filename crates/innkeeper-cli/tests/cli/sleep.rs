use axum::Router;
use innkeeper_model::{GuestState, Level, Verb};
use insta::assert_snapshot;

use crate::fake::{Fake, Stream, accept, events, respond};
use crate::samples::{accepted, finished, guest};

fn fake() -> Fake {
    let mut view = guest("web", 1);
    (view.guest.level, view.state) = (Level::Asleep, GuestState::Asleep);
    let events = events([Stream::Ends(vec![accepted(1, Verb::Sleep), finished(2)])]);
    Fake::new(
        Router::new()
            .route("/v1/guests/web", respond(&view))
            .route("/v1/guests/web/sleep", accept(7, Some("web")))
            .route("/v1/events", events),
    )
}

#[test]
fn result_is_printed() {
    assert_snapshot!(fake().agent(&["sleep", "web"]).transcript(), @r"
    status: 0
    --- stdout
    [INFO] Putting agent web to sleep.
    [OK] Agent web is asleep after N ms.
    --- stderr
    ");
}

#[test]
fn json_has_the_level() {
    let run = fake().agent(&["sleep", "web", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&run.ok()).expect("one value");
    let expected = ["asleep", "asleep"];
    assert_eq!([&value["level"], &value["state"]], expected);
}
