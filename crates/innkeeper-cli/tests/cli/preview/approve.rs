use std::io::Write as _;

use axum::Router;
use innkeeper_model::preview::PreviewState;
use innkeeper_model::{Code, Failure};
use insta::assert_snapshot;

use crate::fake::{
    Fake, accept_preview, attach, fail, journal, read_until, respond_in_turn, terminal,
};
use crate::samples::{WANTED, from_fork, preview};

/// Creates a daemon with a preview of a fork that is live after its approval.
fn daemon() -> Router {
    let live = preview("web-7", PreviewState::Live);
    Router::new()
        .route(
            "/v1/previews/web-7",
            respond_in_turn([Ok(from_fork("web-7")), Ok(live)]),
        )
        .route("/v1/previews/web-7/approve", accept_preview("web-7"))
        .route("/v1/events", journal([], []))
}

/// Returns the output on the terminal after a reply, the exit status and the requests.
fn approve_with_reply(reply: &str) -> (String, Option<i32>, Vec<String>) {
    let (mut user_end, program_end) = terminal();
    let fake = Fake::new(daemon());
    let mut command = fake.command("preview", &["approve", "web-7", "--no-wait"]);
    attach(&mut command, &program_end);
    let mut child = command.env("NO_COLOR", "1").spawn().expect("it starts");
    let question = read_until(&mut user_end, "[y/N] ");
    user_end.write_all(reply.as_bytes()).expect("an answer");
    let rest = read_until(&mut user_end, ".\r\n");
    let status = child.wait().expect("it ends").code();
    (
        format!("{question}{rest}").replace('\r', ""),
        status,
        fake.requests(),
    )
}

#[test]
fn terminal_prompts_with_the_commit() {
    let (output, status, requests) = approve_with_reply("y\n");
    assert_eq!(status, Some(0));
    assert_snapshot!(output, @r"
    Preview:     web-7, pull request octo/web#7
    Repository:  mallory/web, a fork: https://github.com/mallory/web/commit/2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b
    Branch:      feature/x
    Commit:      2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b
    Run the code of this commit on this host? [y/N] y
    [OK] Request for preview web-7 accepted; `preview list` shows its state.
    ");
    assert_snapshot!(requests.join("\n"), @r#"
    GET /v1/previews/web-7
    POST /v1/previews/web-7/approve {"sha":"2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b"}
    "#);
}

#[test]
fn replies_other_than_yes_decline() {
    for reply in ["\n", "n\n", "yesterday\n"] {
        let (output, status, requests) = approve_with_reply(reply);
        assert_eq!((status, requests.len()), (Some(130), 1), "{reply:?}");
        assert!(
            output.ends_with("[INFO] No commit of preview web-7 was approved.\n"),
            "{output}"
        );
    }
}

#[test]
fn commit_is_required_without_a_terminal() {
    let fake = Fake::new(daemon());
    assert_snapshot!(fake.preview(&["approve", "web-7"]).transcript(), @r"
    status: 1
    --- stdout
    --- stderr
    [ERROR] approving commit 2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b of preview 'web-7' needs confirmation on a terminal
            Hint: Review the commit, then run `preview approve web-7 --sha <SHA>`.
    ");
    assert_eq!(fake.requests().len(), 1);
}

#[test]
fn given_commit_is_approved_without_a_prompt() {
    let fake = Fake::new(daemon().route(
        "/v1/previews/web-8/approve",
        fail(Failure::new(
            Code::InvalidRequest,
            "another commit is wanted by now",
        )),
    ));
    let run = fake.preview(&["approve", "web-7", "--sha", WANTED, "--no-wait"]);
    assert_snapshot!(run.ok(), @"[OK] Request for preview web-7 accepted; `preview list` shows its state.");
    assert_eq!(
        fake.requests(),
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
