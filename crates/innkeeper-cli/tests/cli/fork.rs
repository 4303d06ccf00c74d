use axum::Router;
use innkeeper_model::Verb;
use insta::assert_snapshot;

use crate::fake::{Fake, Part, accept, answer, events};
use crate::samples::{accepted, done, finished, guest};

fn fake() -> Fake {
    let steps = vec![
        accepted(1, Verb::Fork),
        done(2, "forget-identity"),
        finished(3),
    ];
    Fake::new(
        Router::new()
            .route("/v1/guests/copy", answer(&guest("copy", 2)))
            .route("/v1/guests/web/fork", accept(7, Some("copy")))
            .route("/v1/events", events([Part::Ends(steps)])),
    )
}

#[test]
fn the_copys_address_is_told() {
    let fake = fake();
    assert_snapshot!(fake.agent(&["fork", "web", "copy"]).whole(), @r"
    status: 0
    --- stdout
    [INFO] Copying agent web to copy.
    [INFO] removing the copied identity took 1.2 ms.
    [OK] Agent copy is up at 10.100.0.5 as a copy of web after N ms.
    --- stderr
    ");
    assert_eq!(
        fake.seen()[0],
        r#"POST /v1/guests/web/fork {"name":"copy","snapshot":null}"#
    );
}

#[test]
fn programs_get_the_copy_as_one_value() {
    let fake = fake();
    let stdout = fake
        .agent(&["fork", "web", "copy", "--from", "old", "--json"])
        .ok();
    let value: serde_json::Value = serde_json::from_str(&stdout).expect("one value");
    assert_eq!(value["name"], "copy");
    assert_eq!(
        fake.seen()[0],
        r#"POST /v1/guests/web/fork {"name":"copy","snapshot":"old"}"#
    );
}
