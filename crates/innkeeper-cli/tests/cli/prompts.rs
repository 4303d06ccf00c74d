//! Tests of prompts: commands that delete data prompt on a terminal only.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use axum::Json;
use axum::Router;
use axum::response::IntoResponse as _;
use axum::routing::{MethodRouter, get};
use innkeeper_model::api::{ConfigReport, GcReport, GuestView, Orphan, Setting};
use innkeeper_model::preview::PreviewState;
use innkeeper_model::{Code, Failure, GuestKind, Snapshot, SnapshotLabel};
use serde::Serialize;

use crate::fake::{Fake, attach, fail, failure_response, read_until, respond, terminal};
use crate::samples::{guest, name, no_preview, preview, retained, time};

/// A command, its prompt, and the request that deletes data.
struct Case {
    program: &'static str,
    arguments: &'static [&'static str],
    request: &'static str,
    prompt: &'static str,
}

const CASES: &[Case] = &[
    Case {
        program: "agent",
        arguments: &["destroy", "web", "db"],
        request: "DELETE /v1/guests/web",
        prompt: "Agent web (running): its files are retained for 60 min at most, 1 snapshot (old) will be \
                 deleted.\r\nAgent db (running): its files are retained for 60 min at most.\r\n\
                 Destroy 2 agents? [y/N] ",
    },
    Case {
        program: "agent",
        arguments: &["destroy", "web", "db", "--now"],
        request: "DELETE /v1/guests/web?now=true",
        prompt: "Agent web (running): its files and 1 snapshot (old) will be deleted.\r\n\
                 Agent db (running): its files will be deleted.\r\n\
                 Destroy 2 agents? [y/N] ",
    },
    Case {
        program: "agent",
        arguments: &["destroy", "former", "--now"],
        request: "DELETE /v1/retained/7",
        prompt: "Destroyed agent former: its retained files will be deleted.\r\n\
                 Destroy 1 agent? [y/N] ",
    },
    Case {
        program: "agent",
        arguments: &["destroy", "web", "--json"],
        request: "DELETE /v1/guests/web",
        prompt: "Agent web (running): its files are retained for 60 min at most, 1 snapshot (old) will be \
                 deleted.\r\nDestroy 1 agent? [y/N] ",
    },
    Case {
        program: "agent",
        arguments: &["restore", "web", "old"],
        request: "POST /v1/guests/web/snapshots/old/restore",
        prompt: "Agent web: changes to its files since snapshot old \
                 (2026-11-20T09:00:00Z) will be lost.\r\nRestore the snapshot? [y/N] ",
    },
    Case {
        program: "agent",
        arguments: &["snapshot", "web", "--delete", "old"],
        request: "DELETE /v1/guests/web/snapshots/old",
        prompt: "Delete snapshot old of agent web (2026-11-20T09:00:00Z)? [y/N] ",
    },
    Case {
        program: "preview",
        arguments: &["destroy", "web-7"],
        request: "DELETE /v1/previews/web-7",
        prompt: "Preview web-7 (octo/web#7): its database and its files will be deleted.\r\n\
                 Destroy it? [y/N] ",
    },
    Case {
        program: "preview",
        arguments: &["db", "reset", "web-7"],
        request: "POST /v1/previews/web-7/database/reset",
        prompt: "Delete all data in the database of preview web-7? [y/N] ",
    },
    Case {
        program: "innkeeper",
        arguments: &["gc"],
        request: r#"POST /v1/gc {"dry_run":false}"#,
        prompt: "rootfs /var/lib/innkeeper/guests/gone\r\nRemove 1 orphan? [y/N] ",
    },
];

/// Responds to `GET` with the view, and to other methods with a failure that ends the command.
fn viewable(view: &impl Serialize) -> MethodRouter {
    let view = serde_json::to_value(view).expect("JSON");
    get(async move || Json(view)).fallback(async || failure_response(&busy()).into_response())
}

fn busy() -> Failure {
    Failure::new(Code::GuestBusy, "another operation runs")
}

fn fake() -> Fake {
    let snapshot = Snapshot {
        guest: name("web"),
        label: SnapshotLabel::parse("old").expect("a label"),
        created_at: time("09:00:00"),
    };
    let orphans = GcReport {
        dry_run: true,
        orphans: vec![Orphan {
            resource: "rootfs".to_owned(),
            object: "/var/lib/innkeeper/guests/gone".to_owned(),
            removed: false,
            ownership: innkeeper_model::Ownership::Ours,
            failure: None,
        }],
        failures: Vec::new(),
    };
    let mut of_preview: GuestView = guest("web-7", 3);
    of_preview.guest.kind = GuestKind::Preview;
    let live = preview("web-7", PreviewState::Live);
    let missing = Failure::new(Code::GuestNotFound, "no guest has this name");
    let config = ConfigReport {
        file: None,
        settings: vec![Setting {
            name: "guest.retention_seconds".to_owned(),
            value: "3600".to_owned(),
            origin: "default".to_owned(),
        }],
    };
    Fake::new(
        Router::new()
            .route("/v1/guests", respond(&[guest("web", 1), guest("db", 2)]))
            .route("/v1/guests/web", viewable(&guest("web", 1)))
            .route("/v1/guests/db", viewable(&guest("db", 2)))
            .route("/v1/config", respond(&config))
            .route("/v1/retained", respond(&[retained(7, "former", 600)]))
            .route("/v1/retained/7", fail(busy()))
            .route("/v1/guests/wbe", fail(missing.clone()))
            .route("/v1/guests/former", fail(missing))
            .route("/v1/guests/web-7", viewable(&of_preview))
            .route("/v1/guests/web/snapshots", respond(&[snapshot]))
            .route("/v1/guests/db/snapshots", respond(&[(); 0]))
            .route("/v1/guests/web/snapshots/old", fail(busy()))
            .route("/v1/guests/web/snapshots/old/restore", fail(busy()))
            .route("/v1/previews", respond(&[&live]))
            .route("/v1/previews/web-7", viewable(&live))
            .route("/v1/previews/wbe-7", fail(no_preview("wbe-7")))
            .route("/v1/previews/web-7/database/reset", fail(busy()))
            .route("/v1/gc", respond(&orphans)),
    )
}

/// The stream of a command that is not the terminal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Redirected {
    None,
    Stderr,
}

/// Returns the output on the terminal and the exit status. Replies after the prompt has appeared.
fn on_terminal(
    fake: &Fake,
    program: &str,
    arguments: &[&str],
    redirected: Redirected,
    reply: Option<&str>,
) -> (String, i32) {
    let (mut user_end, program_end) = terminal();
    let mut command = fake.command(program, arguments);
    attach(&mut command, &program_end);
    if redirected == Redirected::Stderr {
        command.stderr(Stdio::null());
    }
    let mut child = command.env("NO_COLOR", "1").spawn().expect("it starts");
    let mut output = String::new();
    if let Some(reply) = reply {
        output = read_until(&mut user_end, "[y/N] ");
        user_end.write_all(reply.as_bytes()).expect("an answer");
    }
    // Reading fails after the last descriptor of the other end is closed.
    drop((command, OwnedFd::from(program_end)));
    let status = child.wait().expect("it ends").code().expect("no signal");
    output.push_str(&rest(&mut user_end));
    (output, status)
}

fn rest(terminal: &mut File) -> String {
    let mut bytes = Vec::new();
    terminal.read_to_end(&mut bytes).ok();
    String::from_utf8(bytes).expect("UTF-8")
}

fn requested(fake: &Fake, request: &str) -> bool {
    fake.requests().iter().any(|line| line == request)
}

#[test]
fn terminal_prompts_before_data_loss() {
    for case in CASES {
        for (reply, agreed) in [
            ("y\n", true),
            ("n\n", false),
            ("\n", false),
            ("\u{4}", false),
        ] {
            let fake = fake();
            let (output, status) = on_terminal(
                &fake,
                case.program,
                case.arguments,
                Redirected::None,
                Some(reply),
            );
            assert!(output.starts_with(case.prompt), "{output:?}");
            assert_eq!(requested(&fake, case.request), agreed, "{reply:?} {output}");
            assert_eq!(status == 130, !agreed, "{reply:?} {output}");
        }
    }
}

#[test]
fn prompt_moves_to_stdout_if_stderr_is_redirected() {
    for case in CASES {
        let fake = fake();
        let (output, status) = on_terminal(
            &fake,
            case.program,
            case.arguments,
            Redirected::Stderr,
            Some("n\n"),
        );
        assert!(output.starts_with(case.prompt), "{output:?}");
        assert_eq!((status, requested(&fake, case.request)), (130, false));
    }
}

#[test]
fn yes_and_scripts_skip_the_prompt() {
    for case in CASES {
        for yes in ["--yes", "-y"] {
            let fake = fake();
            let arguments = [case.arguments, &[yes]].concat();
            let (output, _) = on_terminal(&fake, case.program, &arguments, Redirected::None, None);
            assert!(!output.contains("[y/N]"), "{output}");
            assert!(requested(&fake, case.request), "{:?}", fake.requests());
        }
        let fake = fake();
        let run = crate::fake::run(fake.command(case.program, case.arguments));
        assert!(!run.transcript().contains("[y/N]"), "{}", run.transcript());
        assert!(requested(&fake, case.request), "{:?}", fake.requests());
        assert!(
            !fake.requests()[0].starts_with("GET"),
            "looks up nothing for a prompt"
        );
    }
}

#[test]
fn mistyped_name_fails_without_a_prompt() {
    for (program, arguments) in [
        ("agent", &["destroy", "wbe"][..]),
        ("preview", &["destroy", "wbe-7"]),
        ("preview", &["db", "reset", "wbe-7"]),
    ] {
        let fake = fake();
        let (output, status) = on_terminal(&fake, program, arguments, Redirected::None, None);
        assert_eq!(status, 3, "{output}");
        assert!(output.contains("Did you mean 'web"), "{output}");
        assert!(!output.contains("[y/N]"), "{output}");
    }
}

#[test]
fn agents_missing_from_the_prompt_are_not_destroyed() {
    let fake = fake();
    let (output, _) = on_terminal(
        &fake,
        "agent",
        &["destroy", "wbe", "web", "web-7"],
        Redirected::None,
        Some("y\n"),
    );
    assert!(output.contains("Destroy 1 agent?"), "{output}");
    assert!(requested(&fake, "DELETE /v1/guests/web"));
    assert!(!requested(&fake, "DELETE /v1/guests/wbe"));
}

#[test]
fn gc_does_not_prompt_without_orphans_or_in_a_dry_run() {
    let none = GcReport {
        dry_run: false,
        orphans: Vec::new(),
        failures: Vec::new(),
    };
    let empty = Fake::new(Router::new().route("/v1/gc", respond(&none)));
    let (output, status) = on_terminal(&empty, "innkeeper", &["gc"], Redirected::None, None);
    assert_eq!((output.as_str(), status), ("(no orphans)\r\n", 0));
    let dry = fake();
    on_terminal(
        &dry,
        "innkeeper",
        &["gc", "--dry-run"],
        Redirected::None,
        None,
    );
    assert_eq!(dry.requests(), [r#"POST /v1/gc {"dry_run":true}"#]);
}
