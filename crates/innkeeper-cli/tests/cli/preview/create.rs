use std::io::{BufRead as _, BufReader, Read as _};

use axum::Router;
use axum::routing::MethodRouter;
use innkeeper_model::preview::PreviewState;
use innkeeper_model::{BuildProgress, Code, EventKind, Failure};
use insta::assert_snapshot;
use rustix::process::{Pid, Signal, kill_process};

use crate::fake::{Fake, Run, accept_preview, answer, answers, directory, journal, refuse};
use crate::samples::{event, from_fork, later, no_preview, note, preview};

const CREATE: [&str; 3] = ["create", "octo/web", "feature/x"];

fn daemon(preview: MethodRouter, events: MethodRouter) -> Router {
    Router::new()
        .route("/v1/previews", accept_preview("web-7"))
        .route("/v1/previews/web-7", preview)
        .route("/v1/events", events)
}

/// A preview that ends in a state, with an event that comes before the end is looked at, and one after.
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
    let journal = journal(first, [note(4, "What led here was seen.")]);
    Fake::new(daemon(answers(views.map(Ok)), journal))
}

#[test]
fn the_url_is_the_last_line() {
    let fake = ends_in(PreviewState::Live);
    assert_snapshot!(fake.preview(&CREATE).whole(), @r"
    status: 0
    --- stdout
    [INFO] Creating preview web-7.
    [INFO] preview-config.nix was evaluated before.
    [INFO] building web.
    [INFO] What led here was seen.
    [OK] Preview web-7 is live after N ms.
    https://web-7.preview.example.com
    --- stderr
    ");
    let mut requests = fake.seen();
    requests.retain(|line| !line.starts_with("GET /v1/previews"));
    assert_snapshot!(requests.join("\n"), @r#"
    POST /v1/previews {"repo":"octo/web","branch":"feature/x","slug":null}
    GET /v1/events?after=0&follow=true&guest=web-7
    GET /v1/events?after=3&follow=false&guest=web-7
    "#);
}

#[test]
fn programs_get_the_preview_as_one_value() {
    let words = [CREATE.as_slice(), &["--json"]].concat();
    assert_snapshot!(ends_in(PreviewState::Live).preview(&words).whole(), @r#"
    status: 0
    --- stdout
    {"elapsed_ms":0,"slug":"web-7","repo":"octo/web","pull_request":7,"branch":"feature/x","head_repo":"octo/web","wanted_sha":"2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b","live_sha":"2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b","approved_sha":null,"state":"live","fault":null,"last_delivery":null,"created_at":"2026-11-20T10:00:00Z","last_activity":"2026-11-20T10:00:00Z","url":"https://web-7.preview.example.com","extra_urls":[]}
    --- stderr
    "#);
}

#[test]
fn quiet_prints_the_url_alone() {
    let words = [CREATE.as_slice(), &["--quiet"]].concat();
    let stdout = ends_in(PreviewState::Live).preview(&words).ok();
    assert_eq!(stdout, "https://web-7.preview.example.com\n");
}

#[test]
fn a_failure_is_explained_and_what_goes_on_is_told() {
    assert_snapshot!(ends_in(PreviewState::Failed).preview(&CREATE).whole(), @r"
    status: 7
    --- stdout
    [INFO] Creating preview web-7.
    [INFO] preview-config.nix was evaluated before.
    [INFO] building web.
    [INFO] What led here was seen.
    [INFO] Commit 1a1a1a1 goes on answering at https://web-7.preview.example.com.
    --- stderr
    [ERROR] nothing answers on port 3000
            Hint: `preview logs web-7` shows what led to it.
            | npm: missing script
    ");
}

#[test]
fn a_failure_is_one_for_programs_too() {
    let words = [CREATE.as_slice(), &["--json"]].concat();
    let run = ends_in(PreviewState::Failed).preview(&words);
    assert_eq!((run.status, run.stdout.as_str()), (7, ""));
    assert_eq!(run.failure().code, Code::AppUnhealthy);
}

#[test]
fn who_has_to_approve_is_told_how() {
    let fake = Fake::new(daemon(answer(&from_fork("web-7")), journal([], [])));
    assert_snapshot!(fake.preview(&CREATE).whole(), @r"
    status: 4
    --- stdout
    [INFO] Creating preview web-7.
    --- stderr
    [ERROR] preview 'web-7' waits: its commit 2b2b2b2 comes from the fork mallory/web, and nobody has approved it
            Hint: `preview approve web-7` shows the commit and asks.
    ");
}

#[test]
fn nobody_has_to_wait() {
    let router = || Router::new().route("/v1/previews", accept_preview("web-7"));
    let words = |more: &'static str| [CREATE.as_slice(), &["--no-wait", more]].concat();
    let fake = Fake::new(router());
    assert_snapshot!(fake.preview(&words("--slug=web-7")).ok(), @"[OK] Accepted for preview web-7; `preview list` shows how far it is.");
    assert_eq!(
        fake.seen(),
        [r#"POST /v1/previews {"repo":"octo/web","branch":"feature/x","slug":"web-7"}"#]
    );
    assert_snapshot!(Fake::new(router()).preview(&words("--json")).ok(), @r#"{"slug":"web-7","operation":null}"#);
    assert_snapshot!(Fake::new(router()).preview(&words("--quiet")).ok(), @"web-7");
}

#[test]
fn a_refusal_is_explained_and_nothing_is_followed() {
    let failure = Failure::new(Code::BranchNotFound, "octo/web has no branch 'feature/x'");
    let fake = Fake::new(Router::new().route("/v1/previews", refuse(failure)));
    assert_snapshot!(fake.preview(&CREATE).whole(), @r"
    status: 3
    --- stdout
    --- stderr
    [ERROR] octo/web has no branch 'feature/x'
    ");
    assert_eq!(fake.seen().len(), 1);
}

#[test]
fn a_preview_that_is_destroyed_meanwhile_is_not_waited_for() {
    let looks = [
        Ok(preview("web-7", PreviewState::Queued)),
        Err(no_preview("web-7")),
    ];
    let journal = journal([note(1, "It is being removed.")], []);
    let fake = Fake::new(daemon(answers(looks), journal));
    let run = fake.preview(&[CREATE.as_slice(), &["--json"]].concat());
    assert_eq!((run.status, run.failure()), (3, no_preview("web-7")));
}

#[test]
fn it_is_waited_for_across_a_restart_of_the_daemon() {
    let directory = directory();
    let socket = directory.path().join("api.sock");
    let queued = preview("web-7", PreviewState::Queued);
    let first = Fake::at(&socket, daemon(answer(&queued), journal([], [])));
    let child = first.spawn("preview", &CREATE);
    first.wait_for("GET /v1/events");
    drop(first);
    let live = preview("web-7", PreviewState::Live);
    let _second = Fake::at(&socket, daemon(answer(&live), journal([], [])));
    let run = Run::of(child.wait_with_output().expect("it ends"));
    assert!(run.ok().ends_with("\nhttps://web-7.preview.example.com\n"));
}

#[test]
fn after_ctrl_c_the_caller_knows_that_it_goes_on() {
    let queued = preview("web-7", PreviewState::Queued);
    let fake = Fake::new(daemon(answer(&queued), journal([note(1, "It waits.")], [])));
    let mut child = fake.spawn("preview", &CREATE);
    let mut stdout = BufReader::new(child.stdout.take().expect("its output"));
    let mut lines = String::new();
    while !lines.contains("It waits") {
        assert_ne!(stdout.read_line(&mut lines).expect("a line"), 0, "{lines}");
    }
    kill_process(Pid::from_child(&child), Signal::INT).expect("it is there");
    stdout.read_to_string(&mut lines).expect("the rest");
    assert_snapshot!(Run::of(child.wait_with_output().expect("it ends")).whole(), @r"
    status: 130
    --- stdout
    --- stderr
    [INFO] Innkeeper goes on without this program; `preview list` shows how far preview web-7 is.
    ");
}
