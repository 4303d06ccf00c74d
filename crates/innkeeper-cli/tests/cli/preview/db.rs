use std::io::Write as _;

use axum::Router;
use innkeeper_model::preview::PreviewState;
use insta::assert_snapshot;

use crate::fake::{Fake, accept_preview, answer, attach, journal, read_until, refuse, terminal};
use crate::samples::{no_preview, preview};

fn fake() -> Fake {
    let live = preview("web-7", PreviewState::Live);
    Fake::new(
        Router::new()
            .route("/v1/previews", answer(&[&live]))
            .route("/v1/previews/web-7", answer(&live))
            .route("/v1/previews/wbe-7", refuse(no_preview("wbe-7")))
            .route("/v1/previews/web-7/database/reset", accept_preview("web-7"))
            .route("/v1/events", journal([], [])),
    )
}

#[test]
fn nothing_is_deleted_unless_somebody_says_so() {
    let fake = fake();
    assert_snapshot!(fake.preview(&["db", "reset", "web-7"]).whole(), @r"
    status: 1
    --- stdout
    --- stderr
    [ERROR] resetting the database of preview 'web-7' needs an answer from a person on a terminal
            Hint: `preview db reset web-7 --yes` does it without asking.
    ");
    assert!(
        fake.seen().iter().all(|line| line.starts_with("GET")),
        "{:?}",
        fake.seen()
    );
}

#[test]
fn a_yes_beforehand_needs_no_question() {
    let fake = fake();
    assert_snapshot!(fake.preview(&["db", "reset", "web-7", "--yes"]).whole(), @r"
    status: 0
    --- stdout
    [INFO] Resetting the database of preview web-7.
    [OK] Preview web-7 is live after N ms.
    https://web-7.preview.example.com
    --- stderr
    ");
    assert_eq!(fake.seen()[0], "POST /v1/previews/web-7/database/reset");
}

#[test]
fn a_person_is_asked() {
    for (answer, status, end) in [
        ("yes\n", 0, "shows how far it is.\r\n"),
        ("\u{4}", 130, "stays as it is.\r\n"),
    ] {
        let (mut ours, theirs) = terminal();
        let fake = fake();
        let mut command = fake.command("preview", &["db", "reset", "web-7", "--no-wait"]);
        attach(&mut command, &theirs);
        let mut child = command.spawn().expect("it starts");
        let question = read_until(&mut ours, "[y/N] ");
        assert_eq!(
            question,
            "Delete everything in the database of preview web-7? [y/N] "
        );
        ours.write_all(answer.as_bytes()).expect("an answer");
        read_until(&mut ours, end);
        assert_eq!(child.wait().expect("it ends").code(), Some(status));
        let asked = fake.seen().iter().any(|line| line.starts_with("POST"));
        assert_eq!(asked, status == 0);
    }
}

#[test]
fn a_slip_is_told_before_the_question() {
    let run = fake().preview(&["db", "reset", "wbe-7", "--json"]);
    assert_eq!(run.status, 3);
    assert_eq!(
        run.failure().remedy.as_deref(),
        Some("Did you mean 'web-7'?")
    );
}
