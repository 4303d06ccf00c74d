use axum::Router;
use innkeeper_model::access::{AuditEntry, TokenName};
use insta::assert_snapshot;

use crate::fake::{Fake, respond};
use crate::samples::time;

fn entry(seq: i64, actor: &str, verb: &str) -> AuditEntry {
    AuditEntry {
        seq,
        time: time("10:00:00"),
        actor: actor.to_owned(),
        login: None,
        token: None,
        source: None,
        verb: verb.to_owned(),
        object: None,
        result: None,
    }
}

#[test]
fn audit_shows_actors_objects_and_results() {
    let text = |text: &str| Some(text.to_owned());
    let entries = [
        AuditEntry {
            object: text("web"),
            result: text("ok"),
            ..entry(1, "uid:0", "guest-create")
        },
        AuditEntry {
            token: TokenName::parse("alice").ok(),
            source: text("192.0.2.7"),
            object: text("shop"),
            result: text("guest_busy"),
            ..entry(2, "token:7", "guest-destroy")
        },
        entry(3, "file:ci", "build"),
    ];
    let fake = Fake::new(Router::new().route("/v1/audit", respond(&entries)));
    assert_snapshot!(fake.innkeeper(&["audit"]).ok());
    assert_eq!(fake.requests(), ["GET /v1/audit?limit=200"]);
    let json = fake.innkeeper(&["audit", "--json"]).ok();
    let printed: Vec<AuditEntry> = serde_json::from_str(&json).expect("a list");
    assert_eq!(printed, entries);
}

#[test]
fn audit_sends_its_filters() {
    let fake = Fake::new(Router::new().route("/v1/audit", respond(&[(); 0])));
    let arguments = [
        "audit",
        "--actor",
        "token:7",
        "--since",
        "2026-11-20T10:00:00Z",
        "-n",
        "5",
    ];
    assert_eq!(fake.innkeeper(&arguments).ok(), "(no entries)\n");
    let expected = "GET /v1/audit?limit=5&actor=token:7&since=2026-11-20T10:00:00Z";
    assert_eq!(fake.requests(), [expected]);
    let ago = fake.innkeeper(&["audit", "--since", "2h"]);
    assert_eq!(ago.status, 0, "{ago:?}");
    for wrong in [
        ["--since", "yesterday"],
        ["--actor", "a b&limit=9"],
        ["--actor", "root:0"],
    ] {
        let run = fake.innkeeper(&["audit", wrong[0], wrong[1]]);
        assert_eq!(run.status, 2, "{run:?}");
    }
}
