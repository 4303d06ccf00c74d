//! Every form of a failure, and the exit code of each kind.

use std::io::{BufRead as _, BufReader};

use axum::Router;
use axum::routing::get;
use innkeeper_model::{Code, Failure};
use insta::assert_snapshot;

use crate::fake::{Fake, Part, command, events, refuse, run};
use crate::samples::{CLOSURE, done};

#[test]
fn help_shows_the_socket_that_the_variable_names() {
    for words in [&["-h"][..], &["list", "-h"]] {
        let mut command = command("agent", words);
        command.env("INNKEEPER_SOCKET", "/srv/a.sock");
        let help = run(command).ok();
        assert!(
            help.contains("[env: INNKEEPER_SOCKET=/srv/a.sock]"),
            "{help}"
        );
        assert!(!help.contains("/run/innkeeper/api.sock"), "{help}");
    }
}

#[test]
fn the_exit_code_follows_from_the_failures_kind() {
    for code in Code::ALL {
        let failure = Failure::new(*code, format!("it is {code}")).with_remedy("Do this.");
        let fake = Fake::new(Router::new().route("/v1/status", refuse(failure.clone())));
        let run = fake.innkeeper(&["status", "--json"]);
        assert_eq!(run.status, i32::from(code.kind().exit_code()), "{code}");
        assert_eq!(
            (run.failure(), run.stdout.as_str()),
            (failure, ""),
            "{code}"
        );
    }
}

#[test]
fn a_daemon_that_is_not_there_is_explained() {
    assert_snapshot!(run(command("agent", &["list"])).whole(), @r"
    status: 8
    --- stdout
    --- stderr
    [ERROR] cannot reach innkeeperd on /nonexistent/api.sock: No such file or directory (os error 2)
            Hint: Is innkeeperd running? `systemctl status innkeeper` tells. Another socket is named with --socket or INNKEEPER_SOCKET.
    ");
    let json = run(command("agent", &["list", "--json"]));
    assert_eq!(
        (json.status, json.failure().code),
        (8, Code::DaemonUnreachable)
    );
}

#[test]
fn a_socket_that_nobody_listens_on_is_explained() {
    let directory = crate::fake::directory();
    let socket = directory.path().join("api.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("a socket"));
    let run = run(command(
        "agent",
        &["list", "--json", "--socket", &socket.display().to_string()],
    ));
    assert_eq!(
        (run.status, run.failure().code),
        (8, Code::DaemonUnreachable)
    );
    assert!(
        run.failure().message.contains("Connection refused"),
        "{run:?}"
    );
}

#[test]
fn words_of_our_own_types_are_refused_before_anything_is_asked() {
    let cases: [(&[&str], Code); 7] = [
        (&["create", "Web"], Code::InvalidName),
        (&["destroy", "ok", "not-"], Code::InvalidName),
        (
            &["create", "--closure", "/nix/store/short"],
            Code::InvalidClosure,
        ),
        (&["create", "--memory", "1M"], Code::InvalidRequest),
        (&["create", "--cpus", "two"], Code::InvalidRequest),
        (&["build", "a b"], Code::InvalidRequest),
        (
            &["exec", "-e", "=x", "web", "--", "true"],
            Code::InvalidRequest,
        ),
    ];
    for (words, code) in cases {
        let run = run(command("agent", &[&["--json"], words].concat()));
        assert_eq!((run.status, run.failure().code), (1, code), "{words:?}");
    }
    assert_snapshot!(run(command("agent", &["create", "Web"])).whole(), @r"
    status: 1
    --- stdout
    --- stderr
    [ERROR] guest name 'Web' contains 'W'; only a-z, 0-9 and '-' are allowed
            Hint: Use 1 to 63 of a-z, 0-9 and '-', for example 'web-1'.
    ");
}

#[test]
fn unknown_words_are_claps_to_explain() {
    assert_snapshot!(run(command("agent", &["destory", "web"])).whole(), @r"
    status: 2
    --- stdout
    --- stderr
    error: unrecognized subcommand 'destory'


    Usage: agent [OPTIONS] <COMMAND>

    For more information, try '--help'.
    ");
    let words = ["create", "--flake", "/x", "--closure", CLOSURE, "--json"];
    assert_snapshot!(run(command("agent", &words)).whole(), @r#"
    status: 2
    --- stdout
    --- stderr
    {"code":"invalid_request","message":"the argument '--flake <FLAKE[#ATTR]>' cannot be used with '--closure <STORE_PATH>'\n\nUsage: agent create --flake <FLAKE[#ATTR]> --json --socket <PATH> [NAME]\n\nFor more information, try '--help'."}
    "#);
}

#[test]
fn an_unknown_word_never_leads_to_a_destructive_command() {
    for (program, word) in [
        ("agent", "destory"),
        ("agent", "restor"),
        ("agent", "stopp"),
        ("preview", "destro"),
        ("innkeeper", "g"),
    ] {
        let run = run(command(program, &[word, "web"]));
        assert_eq!(run.status, 2);
        for destructive in ["'destroy'", "'restore'", "'stop'", "'gc'", "'reset'"] {
            assert!(!run.stderr.contains(destructive), "{word}: {}", run.stderr);
        }
    }
    let run = run(command("agent", &["lst"]));
    assert!(run.stderr.contains("'list'"), "{}", run.stderr);
}

#[test]
fn an_answer_that_makes_no_sense_is_a_defect_with_a_hint() {
    let fake = Fake::new(Router::new().route("/v1/status", get(async || "hello")));
    assert_snapshot!(fake.innkeeper(&["status"]).whole(), @r"
    status: 70
    --- stdout
    --- stderr
    [ERROR] innkeeperd sent an answer that this program does not understand: /v1/status: expected value at line 1 column 1
            Hint: Use programs and daemon of the same version (`agent --version`, `innkeeper status`).
    ");
    let nothing = Fake::new(Router::new());
    assert_snapshot!(nothing.innkeeper(&["status"]).whole(), @r"
    status: 70
    --- stdout
    --- stderr
    [ERROR] innkeeperd sent an answer that this program does not understand: 404 Not Found without a reason
            Hint: Use programs and daemon of the same version (`agent --version`, `innkeeper status`).
    ");
}

#[test]
fn a_newer_daemons_code_keeps_its_words() {
    let words = r#"{"code":"from_the_future","message":"the moon is full","remedy":"Wait."}"#;
    let refuse = get(async move || (axum::http::StatusCode::CONFLICT, words));
    let fake = Fake::new(Router::new().route("/v1/status", refuse));
    assert_snapshot!(fake.innkeeper(&["status"]).whole(), @r"
    status: 70
    --- stdout
    --- stderr
    [ERROR] the moon is full
            Hint: Wait.
    ");
}

#[test]
fn a_reader_that_went_away_is_no_reason_for_words() {
    let more = (0..5_000)
        .map(|seq| done(seq + 1, "ensure-rootfs"))
        .collect();
    let fake = Fake::new(Router::new().route("/v1/events", events([Part::Ends(more)])));
    let mut child = fake.spawn("innkeeper", &["events"]);
    let mut first = String::new();
    let mut stdout = BufReader::new(child.stdout.take().expect("its output"));
    stdout.read_line(&mut first).expect("a line");
    drop(stdout);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(output.stderr, b"");
}

#[test]
fn colours_are_for_terminals() {
    let run = run(command("agent", &["list"]));
    assert!(!run.stderr.contains('\u{1b}'), "{run:?}");
}
