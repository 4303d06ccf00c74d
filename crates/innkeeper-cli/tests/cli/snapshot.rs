use axum::Router;
use innkeeper_model::api::{Accepted, SnapshotAccepted};
use innkeeper_model::{Code, Failure, OperationId, SnapshotLabel, Verb};
use insta::assert_snapshot;

use crate::fake::{Fake, Part, accept, answer, events, refuse};
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
            .route("/v1/guests", answer(&[guest("web", 1)]))
            .route("/v1/guests/web/snapshots", answer(&taken))
            .route("/v1/guests/web/snapshots/old", accept(7, Some("web")))
            .route("/v1/events", events([Part::Ends(steps)])),
    )
}

#[test]
fn the_label_and_the_end_are_told() {
    let fake = fake();
    assert_snapshot!(fake.agent(&["snapshot", "web"]).whole(), @r"
    status: 0
    --- stdout
    [INFO] Taking snapshot 20261121-063005 of agent web.
    [OK] Snapshot 20261121-063005 of agent web is taken after N ms.
    --- stderr
    ");
    assert_eq!(
        fake.seen()[0],
        r#"POST /v1/guests/web/snapshots {"label":null}"#
    );
}

#[test]
fn a_label_needs_no_option() {
    for words in [
        &["snapshot", "web", "mine"][..],
        &["snapshot", "web", "--label", "mine"],
    ] {
        let fake = fake();
        fake.agent(words).ok();
        assert_eq!(
            fake.seen()[0],
            r#"POST /v1/guests/web/snapshots {"label":"mine"}"#
        );
    }
    let both = fake().agent(&["snapshot", "web", "mine", "--label", "other"]);
    assert_eq!(both.status, 2, "{both:?}");
}

#[test]
fn quiet_prints_the_label_alone() {
    let stdout = fake().agent(&["snapshot", "web", "--quiet"]).ok();
    assert_eq!(stdout, "20261121-063005\n");
}

#[test]
fn programs_get_the_label() {
    let fake = fake();
    let run = fake.agent(&["snapshot", "web", "--label", "mine", "--json"]);
    assert_snapshot!(run.whole(), @r#"
    status: 0
    --- stdout
    {"operation":7,"elapsed_ms":0,"guest":"web","label":"20261121-063005"}
    --- stderr
    "#);
    assert_eq!(
        fake.seen()[0],
        r#"POST /v1/guests/web/snapshots {"label":"mine"}"#
    );
}

#[test]
fn one_is_deleted() {
    let fake = fake();
    let run = fake.agent(&["snapshot", "web", "--delete", "old"]);
    assert_snapshot!(run.whole(), @r"
    status: 0
    --- stdout
    [INFO] Deleting snapshot old of agent web.
    [OK] Snapshot old of agent web is gone after N ms.
    --- stderr
    ");
    assert_eq!(fake.seen()[0], "DELETE /v1/guests/web/snapshots/old");
}

#[test]
fn what_is_no_label_is_explained_without_the_daemon() {
    let fake = fake();
    let run = fake.agent(&["snapshot", "web", "--label", "a/b"]);
    assert_snapshot!(run.whole(), @r"
    status: 1
    --- stdout
    --- stderr
    [ERROR] 'a/b' is no label for a snapshot; 1 to 32 of a-z, 0-9 and '-' are, without '-' at either end
            Hint: Choose one such as 'before-upgrade'; one is made up from the time when none is given.
    ");
    assert!(fake.seen().is_empty());
}

#[test]
fn an_agent_that_runs_where_it_must_not_is_explained() {
    let refusal =
        Failure::new(Code::GuestRunning, "guest 'web' runs").with_remedy("`agent stop web` first.");
    let router = Router::new().route("/v1/guests/web/snapshots", refuse(refusal));
    let run = Fake::new(router).agent(&["snapshot", "web"]);
    assert_snapshot!(run.whole(), @r"
    status: 4
    --- stdout
    --- stderr
    [ERROR] guest 'web' runs
            Hint: `agent stop web` first.
    ");
}
