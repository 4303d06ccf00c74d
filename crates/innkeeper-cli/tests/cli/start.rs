use axum::Router;
use innkeeper_model::Verb;
use insta::assert_snapshot;

use crate::fake::{Fake, Stream, accept, events, respond};
use crate::samples::{accepted, done, finished, guest};

fn fake() -> Fake {
    let parts = [Stream::Ends(vec![
        accepted(1, Verb::Start),
        done(2, "ensure-unit"),
        finished(3),
    ])];
    Fake::new(
        Router::new()
            .route("/v1/guests/web", respond(&guest("web", 1)))
            .route("/v1/guests/web/start", accept(7, Some("web")))
            .route("/v1/events", events(parts)),
    )
}

#[test]
fn address_is_printed() {
    assert_snapshot!(fake().agent(&["start", "web"]).transcript(), @r"
    status: 0
    --- stdout
    [INFO] Starting agent web.
    [INFO] starting the unit took 1.2 ms.
    [OK] Agent web is up at 10.100.0.3 after N ms.
    --- stderr
    ");
}

#[test]
fn json_has_the_guest() {
    let run = fake().agent(&["start", "web", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&run.ok()).expect("one value");
    assert_eq!(value["operation"], 7);
    assert_eq!(value["guest_address"], "10.100.0.3");
}
