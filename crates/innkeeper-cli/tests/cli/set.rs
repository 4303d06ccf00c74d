use axum::Router;
use innkeeper_model::{
    ChangeOutcome, Code, EventKind, Failure, LastChange, OperationId, StorePath, Verb,
};
use insta::assert_snapshot;

use crate::fake::{Fake, Stream, accept, events, respond};
use crate::samples::{CLOSURE, accepted, done, event, finished, guest, time};

fn fake(outcome: ChangeOutcome, end: EventKind) -> Fake {
    let mut view = guest("web", 1);
    view.guest.last_change = Some(LastChange {
        operation: OperationId(7),
        closure: Some(StorePath::parse(CLOSURE).expect("valid")),
        outcome,
        failure: None,
        at: time("12:00:00"),
    });
    let steps = vec![
        accepted(1, Verb::Set),
        done(2, "switch-guest"),
        event(3, end),
    ];
    Fake::new(
        Router::new()
            .route("/v1/guests/web", respond(&view))
            .route("/v1/guests/web/set", accept(7, Some("web")))
            .route("/v1/events", events([Stream::Ends(steps)])),
    )
}

#[test]
fn outcome_is_printed() {
    let fake = fake(ChangeOutcome::Switched, finished(3).kind);
    let run = fake.agent(&["set", "web", "--closure", CLOSURE]);
    assert_snapshot!(run.transcript(), @r"
    status: 0
    --- stdout
    [INFO] Changing agent web.
    [INFO] switching the running system took 1.2 ms.
    [OK] Agent web switched to the new closure in place after N ms.
    --- stderr
    ");
    assert_snapshot!(fake.requests()[0], @r#"POST /v1/guests/web/set {"flake":null,"closure":"/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest","memory":null,"cpus":null,"tasks":null,"restart":false}"#);
}

#[test]
fn each_outcome_has_a_sentence() {
    let outcomes = [
        ChangeOutcome::Unchanged,
        ChangeOutcome::AtNextStart,
        ChangeOutcome::Restarted,
    ];
    let lines = outcomes.map(|outcome| {
        let fake = fake(outcome, finished(3).kind);
        let run = fake.agent(&["set", "web", "--flake", "/srv/fleet#web"]);
        let transcript = run.transcript();
        let line = transcript.lines().find(|line| line.starts_with("[OK]"));
        line.expect("a result").to_owned()
    });
    assert_snapshot!(lines.join("\n"), @r"
    [OK] Agent web is unchanged: its closure and limits are the same.
    [OK] Agent web is stopped, and has the new closure and limits at its next start.
    [OK] Agent web was restarted and is up after N ms.
    ");
}

#[test]
fn failure_has_the_log_of_the_guest() {
    let mut failure = Failure::new(Code::SwitchFailed, "guest 'web' cannot switch");
    failure.log = vec!["the activation failed".to_owned()];
    let fake = fake(ChangeOutcome::RolledBack, EventKind::Failed { failure });
    let run = fake.agent(&["set", "web", "--memory", "2G", "--restart"]);
    assert_snapshot!(run.transcript(), @r"
    status: 7
    --- stdout
    [INFO] Changing agent web.
    [INFO] switching the running system took 1.2 ms.
    --- stderr
    [ERROR] guest 'web' cannot switch
            | the activation failed
    ");
    assert_snapshot!(fake.requests()[0], @r#"POST /v1/guests/web/set {"flake":null,"closure":null,"memory":"2G","cpus":null,"tasks":null,"restart":true}"#);
}
