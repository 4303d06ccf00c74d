use axum::Router;
use innkeeper_model::{Code, Failure, Snapshot, SnapshotLabel};
use insta::assert_snapshot;

use crate::fake::{Fake, fail, respond};
use crate::samples::{guest, name, time};

fn snapshots() -> Vec<Snapshot> {
    let one = |guest: &str, label: &str| Snapshot {
        guest: name(guest),
        label: SnapshotLabel::parse(label).expect("a label"),
        created_at: time("10:00:00.25"),
    };
    vec![one("db", "empty"), one("web", "before-upgrade")]
}

fn fake() -> Fake {
    let missing = Failure::new(Code::GuestNotFound, "no guest is named 'wbe'");
    Fake::new(
        Router::new()
            .route("/v1/guests", respond(&[guest("web", 1)]))
            .route("/v1/snapshots", respond(&snapshots()))
            .route(
                "/v1/guests/web/snapshots",
                respond(&snapshots().split_off(1)),
            )
            .route("/v1/guests/db/snapshots", respond(&[(); 0]))
            .route("/v1/guests/wbe/snapshots", fail(missing)),
    )
}

#[test]
fn list_prints_a_table() {
    assert_snapshot!(fake().agent(&["snapshots"]).ok(), @r"
    AGENT  LABEL           TAKEN
    db     empty           2026-11-20T10:00:00Z
    web    before-upgrade  2026-11-20T10:00:00Z
    ");
    assert_snapshot!(fake().agent(&["snapshots", "web"]).ok(), @r"
    AGENT  LABEL           TAKEN
    web    before-upgrade  2026-11-20T10:00:00Z
    ");
    assert_eq!(fake().agent(&["snapshots", "db"]).ok(), "(no snapshots)\n");
}

#[test]
fn json_has_the_list() {
    let stdout = fake().agent(&["snapshots", "--json"]).ok();
    let read: Vec<Snapshot> = serde_json::from_str(&stdout).expect("one value");
    assert_eq!(read, snapshots());
}

#[test]
fn mistyped_name_gets_a_suggestion() {
    let failure = fake().agent(&["snapshots", "wbe", "--json"]).failure();
    assert_eq!(failure.remedy.as_deref(), Some("Did you mean 'web'?"));
}
