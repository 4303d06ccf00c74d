use axum::Router;
use innkeeper_model::api::{Accepted, SnapshotAccepted};
use innkeeper_model::{Code, Failure, OperationId, SnapshotLabel, Verb};
use insta::assert_snapshot;

use crate::fake::{Fake, Stream, accept, events, fail, respond};
use crate::samples::{accepted, finished, guest, name};

fn fake() -> Fake {
    let taken = SnapshotAccepted {
        accepted: Accepted {
            operation: OperationId(7),
            guest: Some(name("web")),
        },
        label: SnapshotLabel::parse("20261121-063005").expect("a label"),
    };
    let steps = vec![accepted(1, Verb::Snapshot), finished(2)];
    Fake::new(
        Router::new()
            .route("/v1/guests", respond(&[guest("web", 1)]))
            .route("/v1/guests/web/snapshots", respond(&taken))
            .route("/v1/guests/web/snapshots/old", accept(7, Some("web")))
            .route("/v1/events", events([Stream::Ends(steps)])),
    )
}

#[test]
fn label_and_result_are_printed() {
    let fake = fake();
    assert_snapshot!(fake.agent(&["snapshot", "web"]).transcript(), @r"
    status: 0
    --- stdout
    [INFO] Taking snapshot 20261121-063005 of agent web.
    [OK] Snapshot 20261121-063005 of agent web taken in N ms.
    --- stderr
    ");
    assert_eq!(
        fake.requests()[0],
        r#"POST /v1/guests/web/snapshots {"label":null}"#
    );
}

#[test]
fn label_is_an_argument_or_an_option() {
    for arguments in [
        &["snapshot", "web", "mine"][..],
        &["snapshot", "web", "--label", "mine"],
    ] {
        let fake = fake();
        fake.agent(arguments).ok();
        assert_eq!(
            fake.requests()[0],
            r#"POST /v1/guests/web/snapshots {"label":"mine"}"#
        );
    }
    let both = fake().agent(&["snapshot", "web", "mine", "--label", "other"]);
    assert_eq!(both.status, 2, "{both:?}");
}

#[test]
fn quiet_prints_the_label_only() {
    let stdout = fake().agent(&["snapshot", "web", "--quiet"]).ok();
    assert_eq!(stdout, "20261121-063005\n");
}

#[test]
fn json_has_the_label() {
    let fake = fake();
    let run = fake.agent(&["snapshot", "web", "--label", "mine", "--json"]);
    assert_snapshot!(run.transcript(), @r#"
    status: 0
    --- stdout
    {"operation":7,"elapsed_ms":0,"guest":"web","label":"20261121-063005"}
    --- stderr
    "#);
    assert_eq!(
        fake.requests()[0],
        r#"POST /v1/guests/web/snapshots {"label":"mine"}"#
    );
}

#[test]
fn delete_removes_the_snapshot() {
    let fake = fake();
    let run = fake.agent(&["snapshot", "web", "--delete", "old"]);
    assert_snapshot!(run.transcript(), @r"
    status: 0
    --- stdout
    [INFO] Deleting snapshot old of agent web.
    [OK] Snapshot old of agent web deleted in N ms.
    --- stderr
    ");
    assert_eq!(fake.requests()[0], "DELETE /v1/guests/web/snapshots/old");
}

#[test]
fn invalid_label_fails_before_any_request() {
    let fake = fake();
    let run = fake.agent(&["snapshot", "web", "--label", "a/b"]);
    assert_snapshot!(run.transcript(), @r"
    status: 1
    --- stdout
    --- stderr
    [ERROR] 'a/b' is not a valid snapshot label; use 1 to 32 of a-z, 0-9 and '-', without '-' at either end
            Hint: Choose a label such as 'before-upgrade', or omit it to generate one from the time.
    ");
    assert!(fake.requests().is_empty());
}

#[test]
fn running_agent_has_a_remedy() {
    let failure_response =
        Failure::new(Code::GuestRunning, "guest 'web' runs").with_remedy("`agent stop web` first.");
    let router = Router::new().route("/v1/guests/web/snapshots", fail(failure_response));
    let run = Fake::new(router).agent(&["snapshot", "web"]);
    assert_snapshot!(run.transcript(), @r"
    status: 4
    --- stdout
    --- stderr
    [ERROR] guest 'web' runs
            Hint: `agent stop web` first.
    ");
}
