use axum::Router;
use innkeeper_model::Verb;
use insta::assert_snapshot;

use crate::fake::{Fake, Stream, accept, events, respond};
use crate::samples::{accepted, done, finished, guest};

fn fake() -> Fake {
    let steps = vec![
        accepted(1, Verb::Fork),
        done(2, "forget-identity"),
        finished(3),
    ];
    Fake::new(
        Router::new()
            .route("/v1/guests/copy", respond(&guest("copy", 2)))
            .route("/v1/guests/web/fork", accept(7, Some("copy")))
            .route("/v1/events", events([Stream::Ends(steps)])),
    )
}

#[test]
fn address_of_the_copy_is_printed() {
    let fake = fake();
    assert_snapshot!(fake.agent(&["fork", "web", "copy"]).transcript(), @r"
    status: 0
    --- stdout
    [INFO] Copying agent web to copy.
    [INFO] removing the copied identity took 1.2 ms.
    [OK] Agent copy is up at 10.100.0.5 as a copy of web after N ms.
    --- stderr
    ");
    assert_eq!(
        fake.requests()[0],
        r#"POST /v1/guests/web/fork {"name":"copy","snapshot":null}"#
    );
}

#[test]
fn json_has_the_copy() {
    let fake = fake();
    let stdout = fake
        .agent(&["fork", "web", "copy", "--from", "old", "--json"])
        .ok();
    let value: serde_json::Value = serde_json::from_str(&stdout).expect("one value");
    assert_eq!(value["name"], "copy");
    assert_eq!(
        fake.requests()[0],
        r#"POST /v1/guests/web/fork {"name":"copy","snapshot":"old"}"#
    );
}
