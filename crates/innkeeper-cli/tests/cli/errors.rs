//! Tests of failures and exit codes.

use std::io::{BufRead as _, BufReader};

use axum::Router;
use axum::routing::get;
use innkeeper_model::{Code, Failure};
use insta::assert_snapshot;

use crate::fake::{Fake, Stream, command, events, fail, run};
use crate::samples::{CLOSURE, done};

#[test]
fn help_shows_the_socket_from_the_environment() {
    for arguments in [&["-h"][..], &["list", "-h"]] {
        let mut command = command("agent", arguments);
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
fn exit_code_follows_from_the_failures_kind() {
    for code in Code::ALL {
        let failure = Failure::new(*code, format!("it is {code}")).with_remedy("Do this.");
        let fake = Fake::new(Router::new().route("/v1/status", fail(failure.clone())));
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
fn missing_socket_has_a_hint() {
    assert_snapshot!(run(command("agent", &["list"])).transcript(), @r"
    status: 8
    --- stdout
    --- stderr
    [ERROR] cannot reach innkeeperd on /nonexistent/api.sock: No such file or directory (os error 2)
            Hint: Check `systemctl status innkeeper`. Use --socket or INNKEEPER_SOCKET if the socket has another path, and INNKEEPER_URL or `innkeeper context add` for a host elsewhere.
    ");
    let json = run(command("agent", &["list", "--json"]));
    assert_eq!(
        (json.status, json.failure().code),
        (8, Code::DaemonUnreachable)
    );
}

#[test]
fn refused_connection_is_reported() {
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
fn invalid_values_fail_before_any_request() {
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
    for (arguments, code) in cases {
        let run = run(command("agent", &[&["--json"], arguments].concat()));
        assert_eq!((run.status, run.failure().code), (1, code), "{arguments:?}");
    }
    assert_snapshot!(run(command("agent", &["create", "Web"])).transcript(), @r"
    status: 1
    --- stdout
    --- stderr
    [ERROR] guest name 'Web' contains 'W'; only a-z, 0-9 and '-' are allowed
            Hint: Use 1 to 63 of a-z, 0-9 and '-', for example 'web-1'.
    ");
}

#[test]
fn usage_errors_have_status_2() {
    assert_snapshot!(run(command("agent", &["destory", "web"])).transcript(), @r"
    status: 2
    --- stdout
    --- stderr
    error: unrecognized subcommand 'destory'


    Usage: agent [OPTIONS] <COMMAND>

    For more information, try '--help'.
    ");
    let arguments = ["create", "--flake", "/x", "--closure", CLOSURE, "--json"];
    assert_snapshot!(run(command("agent", &arguments)).transcript(), @r#"
    status: 2
    --- stdout
    --- stderr
    {"code":"invalid_request","message":"the argument '--flake <FLAKE[#ATTR]>' cannot be used with '--closure <STORE_PATH>'\n\nUsage: agent create --flake <FLAKE[#ATTR]> --json --socket <PATH> [NAME]\n\nFor more information, try '--help'."}
    "#);
}

#[test]
fn destructive_commands_are_never_suggested() {
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
fn unexpected_response_is_an_internal_error() {
    let fake = Fake::new(Router::new().route("/v1/status", get(async || "hello")));
    assert_snapshot!(fake.innkeeper(&["status"]).transcript(), @r"
    status: 70
    --- stdout
    --- stderr
    [ERROR] unexpected response from innkeeperd: /v1/status: expected value at line 1 column 1
            Hint: Use the same version of programs and daemon (`agent --version`, `innkeeper status`).
    ");
    let nothing = Fake::new(Router::new());
    assert_snapshot!(nothing.innkeeper(&["status"]).transcript(), @r"
    status: 70
    --- stdout
    --- stderr
    [ERROR] unexpected response from innkeeperd: 404 Not Found without a failure
            Hint: Use the same version of programs and daemon (`agent --version`, `innkeeper status`).
    ");
}

#[test]
fn unknown_code_keeps_message_and_remedy() {
    let body = r#"{"code":"from_the_future","message":"the moon is full","remedy":"Wait."}"#;
    let fail = get(async move || (axum::http::StatusCode::CONFLICT, body));
    let fake = Fake::new(Router::new().route("/v1/status", fail));
    assert_snapshot!(fake.innkeeper(&["status"]).transcript(), @r"
    status: 70
    --- stdout
    --- stderr
    [ERROR] the moon is full
            Hint: Wait.
    ");
}

#[test]
fn closed_pipe_is_silent() {
    let more = (0..5_000)
        .map(|seq| done(seq + 1, "ensure-rootfs"))
        .collect();
    let fake = Fake::new(Router::new().route("/v1/events", events([Stream::Ends(more)])));
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
fn pipe_gets_no_colors() {
    let run = run(command("agent", &["list"]));
    assert!(!run.stderr.contains('\u{1b}'), "{run:?}");
}
