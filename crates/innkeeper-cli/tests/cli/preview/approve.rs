use std::io::Write as _;

use axum::Router;
use innkeeper_model::preview::PreviewState;
use innkeeper_model::{Code, Failure};
use insta::assert_snapshot;

use crate::fake::{Fake, accept_preview, answers, attach, journal, read_until, refuse, terminal};
use crate::samples::{WANTED, from_fork, preview};

/// A preview of a fork that is live once it was approved.
fn daemon() -> Router {
    let live = preview("web-7", PreviewState::Live);
    Router::new()
        .route(
            "/v1/previews/web-7",
            answers([Ok(from_fork("web-7")), Ok(live)]),
        )
        .route("/v1/previews/web-7/approve", accept_preview("web-7"))
        .route("/v1/events", journal([], []))
}

/// What a person sees who answers, the exit status, and the requests.
fn answered(answer: &str) -> (String, Option<i32>, Vec<String>) {
    let (mut ours, theirs) = terminal();
    let fake = Fake::new(daemon());
    let mut command = fake.command("preview", &["approve", "web-7", "--no-wait"]);
    attach(&mut command, &theirs);
    let mut child = command.env("NO_COLOR", "1").spawn().expect("it starts");
    let question = read_until(&mut ours, "[y/N] ");
    ours.write_all(answer.as_bytes()).expect("an answer");
    let rest = read_until(&mut ours, ".\r\n");
    let status = child.wait().expect("it ends").code();
    (
        format!("{question}{rest}").replace('\r', ""),
        status,
        fake.seen(),
    )
}

#[test]
fn the_commit_is_shown_and_a_person_asked() {
    let (seen, status, requests) = answered("y\n");
    assert_eq!(status, Some(0));
    assert_snapshot!(seen, @r"
    Preview:     web-7, pull request octo/web#7
    Repository:  mallory/web, a fork: https://github.com/mallory/web/commit/2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b
    Branch:      feature/x
    Commit:      2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b
    Run the code of this commit on this host? [y/N] y
    [OK] Accepted for preview web-7; `preview list` shows how far it is.
    ");
    assert_snapshot!(requests.join("\n"), @r#"
    GET /v1/previews/web-7
    POST /v1/previews/web-7/approve {"sha":"2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b"}
    "#);
}

#[test]
fn whatever_is_not_yes_is_no() {
    for answer in ["\n", "n\n", "yesterday\n"] {
        let (seen, status, requests) = answered(answer);
        assert_eq!((status, requests.len()), (Some(130), 1), "{answer:?}");
        assert!(
            seen.ends_with("[INFO] Nothing of preview web-7 was approved.\n"),
            "{seen}"
        );
    }
}

#[test]
fn without_a_terminal_the_commit_has_to_be_named() {
    let fake = Fake::new(daemon());
    assert_snapshot!(fake.preview(&["approve", "web-7"]).whole(), @r"
    status: 1
    --- stdout
    --- stderr
    [ERROR] approving commit 2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b of preview 'web-7' needs an answer from a person on a terminal
            Hint: Look at the commit, then `preview approve web-7 --sha <SHA>`.
    ");
    assert_eq!(fake.seen().len(), 1);
}

#[test]
fn a_commit_that_was_looked_at_needs_no_question() {
    let fake = Fake::new(daemon().route(
        "/v1/previews/web-8/approve",
        refuse(Failure::new(
            Code::InvalidRequest,
            "another commit is wanted by now",
        )),
    ));
    let run = fake.preview(&["approve", "web-7", "--sha", WANTED, "--no-wait"]);
    assert_snapshot!(run.ok(), @"[OK] Accepted for preview web-7; `preview list` shows how far it is.");
    assert_eq!(
        fake.seen(),
        [format!(
            r#"POST /v1/previews/web-7/approve {{"sha":"{WANTED}"}}"#
        )]
    );
    let refused = fake.preview(&["approve", "web-8", "--sha", WANTED, "--json"]);
    assert_eq!(
        (refused.status, refused.failure().code),
        (1, Code::InvalidRequest)
    );
}
