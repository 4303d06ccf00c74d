use std::io::{BufRead as _, BufReader, Read as _};

use axum::Router;
use axum::routing::MethodRouter;
use innkeeper_model::preview::PreviewState;
use innkeeper_model::{BuildProgress, Code, EventKind, Failure};
use insta::assert_snapshot;
use rustix::process::{Pid, Signal, kill_process};

use crate::fake::{Fake, Run, accept_preview, directory, fail, journal, respond, respond_in_turn};
use crate::samples::{event, from_fork, later, no_preview, note, preview};

const CREATE: [&str; 3] = ["create", "octo/web", "feature/x"];

fn daemon(preview: MethodRouter, events: MethodRouter) -> Router {
    Router::new()
        .route("/v1/previews", accept_preview("web-7"))
        .route("/v1/previews/web-7", preview)
        .route("/v1/events", events)
}

/// Creates a daemon whose preview settles in a state, with events before and after that.
fn ends_in(state: PreviewState) -> Fake {
    let former = event(1, EventKind::Finished);
    let progress = BuildProgress {
        activity: "building web".to_owned(),
        ..BuildProgress::default()
    };
    let views = [
        preview("web-7", PreviewState::Evaluating),
        preview("web-7", state),
    ];
    let first = [
        former,
        note(2, "preview-config.nix was evaluated before."),
        later(0, EventKind::Progress { progress }),
        later(3, EventKind::Finished),
    ];
    let journal = journal(first, [note(4, "The app is set up.")]);
    Fake::new(daemon(respond_in_turn(views.map(Ok)), journal))
}

#[test]
fn url_is_the_last_line() {
    let fake = ends_in(PreviewState::Live);
    assert_snapshot!(fake.preview(&CREATE).transcript(), @r"
    status: 0
    --- stdout
    [INFO] Creating preview web-7.
    [INFO] preview-config.nix was evaluated before.
    [INFO] building web.
    [INFO] The app is set up.
    [OK] Preview web-7 is live after N ms.
    https://web-7.preview.example.com
    --- stderr
    ");
    let mut requests = fake.requests();
    requests.retain(|line| !line.starts_with("GET /v1/previews"));
    assert_snapshot!(requests.join("\n"), @r#"
    POST /v1/previews {"repo":"octo/web","branch":"feature/x","slug":null}
    GET /v1/events?after=0&follow=true&guest=web-7
    GET /v1/events?after=3&follow=false&guest=web-7
    "#);
}

#[test]
fn json_has_the_preview() {
    let arguments = [CREATE.as_slice(), &["--json"]].concat();
    assert_snapshot!(ends_in(PreviewState::Live).preview(&arguments).transcript(), @r#"
    status: 0
    --- stdout
    {"elapsed_ms":0,"slug":"web-7","repo":"octo/web","pull_request":7,"branch":"feature/x","head_repo":"octo/web","wanted_sha":"2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b","live_sha":"2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b","approved_sha":null,"state":"live","fault":null,"last_delivery":null,"created_at":"2026-11-20T10:00:00Z","last_activity":"2026-11-20T10:00:00Z","rollout":{"attempt":0,"began_at":null,"state_since":null,"live_at":null,"duration_ms":null,"changes":null},"url":"https://web-7.preview.example.com","extra_urls":[],"visibility":"public","observed_at":"2026-11-20T12:30:00Z"}
    --- stderr
    "#);
}

#[test]
fn quiet_prints_the_url_only() {
    let arguments = [CREATE.as_slice(), &["--quiet"]].concat();
    let stdout = ends_in(PreviewState::Live).preview(&arguments).ok();
    assert_eq!(stdout, "https://web-7.preview.example.com\n");
}

#[test]
fn failure_reports_cause_and_live_commit() {
    assert_snapshot!(ends_in(PreviewState::Failed).preview(&CREATE).transcript(), @r"
    status: 7
    --- stdout
    [INFO] Creating preview web-7.
    [INFO] preview-config.nix was evaluated before.
    [INFO] building web.
    [INFO] The app is set up.
    [INFO] Commit 1a1a1a1 stays live at https://web-7.preview.example.com.
    --- stderr
    [ERROR] no response on port 3000
            Hint: `preview logs web-7` shows the details.
            | npm: missing script
    ");
}

#[test]
fn failure_is_a_json_failure() {
    let arguments = [CREATE.as_slice(), &["--json"]].concat();
    let run = ends_in(PreviewState::Failed).preview(&arguments);
    assert_eq!((run.status, run.stdout.as_str()), (7, ""));
    assert_eq!(run.failure().code, Code::AppUnhealthy);
}

#[test]
fn unapproved_commit_has_a_remedy() {
    let fake = Fake::new(daemon(respond(&from_fork("web-7")), journal([], [])));
    assert_snapshot!(fake.preview(&CREATE).transcript(), @r"
    status: 4
    --- stdout
    [INFO] Creating preview web-7.
    --- stderr
    [ERROR] preview 'web-7' waits for approval: its commit 2b2b2b2 comes from the fork mallory/web
            Hint: `preview approve web-7` shows the commit and prompts for approval.
    ");
}

#[test]
fn no_wait_returns_after_acceptance() {
    let router = || Router::new().route("/v1/previews", accept_preview("web-7"));
    let arguments = |more: &'static str| [CREATE.as_slice(), &["--no-wait", more]].concat();
    let fake = Fake::new(router());
    assert_snapshot!(fake.preview(&arguments("--slug=web-7")).ok(), @"[OK] Request for preview web-7 accepted; `preview list` shows its state.");
    assert_eq!(
        fake.requests(),
        [r#"POST /v1/previews {"repo":"octo/web","branch":"feature/x","slug":"web-7"}"#]
    );
    assert_snapshot!(Fake::new(router()).preview(&arguments("--json")).ok(), @r#"{"slug":"web-7","operation":null}"#);
    assert_snapshot!(Fake::new(router()).preview(&arguments("--quiet")).ok(), @"web-7");
}

#[test]
fn rejected_request_is_reported_and_not_followed() {
    let failure = Failure::new(Code::BranchNotFound, "octo/web has no branch 'feature/x'");
    let fake = Fake::new(Router::new().route("/v1/previews", fail(failure)));
    assert_snapshot!(fake.preview(&CREATE).transcript(), @r"
    status: 3
    --- stdout
    --- stderr
    [ERROR] octo/web has no branch 'feature/x'
    ");
    assert_eq!(fake.requests().len(), 1);
}

#[test]
fn destroyed_preview_ends_the_wait() {
    let responses = [
        Ok(preview("web-7", PreviewState::Queued)),
        Err(no_preview("web-7")),
    ];
    let journal = journal([note(1, "It is being removed.")], []);
    let fake = Fake::new(daemon(respond_in_turn(responses), journal));
    let run = fake.preview(&[CREATE.as_slice(), &["--json"]].concat());
    assert_eq!((run.status, run.failure()), (3, no_preview("web-7")));
}

#[test]
fn wait_survives_a_daemon_restart() {
    let directory = directory();
    let socket = directory.path().join("api.sock");
    let queued = preview("web-7", PreviewState::Queued);
    let first = Fake::at(&socket, daemon(respond(&queued), journal([], [])));
    let child = first.spawn("preview", &CREATE);
    first.wait_for("GET /v1/events");
    drop(first);
    let live = preview("web-7", PreviewState::Live);
    let _second = Fake::at(&socket, daemon(respond(&live), journal([], [])));
    let run = Run::of(child.wait_with_output().expect("it ends"));
    assert!(run.ok().ends_with("\nhttps://web-7.preview.example.com\n"));
}

#[test]
fn ctrl_c_reports_that_the_change_continues() {
    let queued = preview("web-7", PreviewState::Queued);
    let fake = Fake::new(daemon(
        respond(&queued),
        journal([note(1, "It waits.")], []),
    ));
    let mut child = fake.spawn("preview", &CREATE);
    let mut stdout = BufReader::new(child.stdout.take().expect("its output"));
    let mut lines = String::new();
    while !lines.contains("It waits") {
        assert_ne!(stdout.read_line(&mut lines).expect("a line"), 0, "{lines}");
    }
    kill_process(Pid::from_child(&child), Signal::INT).expect("it is there");
    stdout.read_to_string(&mut lines).expect("the rest");
    assert_snapshot!(Run::of(child.wait_with_output().expect("it ends")).transcript(), @r"
    status: 130
    --- stdout
    --- stderr
    [INFO] The change continues in the background; `preview list` shows the state of preview web-7.
    ");
}
