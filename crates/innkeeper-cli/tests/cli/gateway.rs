//! Tests of the programs through a gateway.

use std::io::Write as _;
use std::net::TcpListener;
use std::process::Stdio;

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use innkeeper_model::Code;
use insta::assert_snapshot;

use crate::exec::{daemon, echo};
use crate::fake::{Fake, Run, Stream, command, events, run};
use crate::samples::{done, finished, guest};
use crate::tls_front::{Authority, Front, TOKEN};

/// Responds with a list of one agent to requests with the token of the tests, as the gateway does.
fn list() -> Router {
    let respond = async |headers: HeaderMap| -> Response {
        let token = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        match token == Some(&format!("Bearer {TOKEN}")) {
            true => Json(vec![guest("web", 1)]).into_response(),
            false => (StatusCode::UNAUTHORIZED, r#"{"error":"unauthorized"}"#).into_response(),
        }
    };
    Router::new().route("/v1/guests", get(respond))
}

/// Runs a command to its end, and checks that its output does not contain the token.
fn silent(command: std::process::Command) -> Run {
    let run = run(command);
    for text in [&run.stdout, &run.stderr] {
        assert!(
            !text.contains(TOKEN) && !text.contains("c2VjcmV0"),
            "{run:?}"
        );
    }
    run
}

#[test]
fn request_is_sent_with_the_token_over_tls() {
    let Some(authority) = Authority::new("request_is_sent_with_the_token_over_tls") else {
        return;
    };
    let fake = Fake::new(list());
    let front = Front::of(&fake, Some(&authority));
    let names = silent(front.command(Some(&authority), "agent", &["list", "--quiet"]));
    assert_eq!(names.ok(), "web\n");

    // From a file, with a line break at its end.
    let file = authority.file().with_file_name("token");
    std::fs::write(&file, format!("{TOKEN}\n")).expect("written");
    let mut command = front.command(Some(&authority), "agent", &["list", "--quiet"]);
    command
        .env_remove("INNKEEPER_TOKEN")
        .env("INNKEEPER_TOKEN_FILE", &file);
    assert_eq!(silent(command).ok(), "web\n");

    // The option precedes the variable.
    let url = format!("https://{}", front.address);
    let mut command = front.command(
        Some(&authority),
        "agent",
        &["list", "--quiet", "--url", &url],
    );
    command.env("INNKEEPER_URL", "https://127.0.0.1:1");
    assert_eq!(silent(command).ok(), "web\n");
}

#[test]
fn command_in_a_guest_runs_over_tls() {
    let Some(authority) = Authority::new("command_in_a_guest_runs_over_tls") else {
        return;
    };
    let fake = daemon(echo);
    let front = Front::of(&fake, Some(&authority));
    let mut command = front.command(Some(&authority), "agent", &["exec", "web", "--", "cat"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let input = vec![b'x'; 1_000_000];
    let mut stdin = child.stdin.take().expect("its input");
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let run = Run::of(child.wait_with_output().expect("it ends"));
    writer.join().expect("no panic").expect("all was read");
    assert_eq!(
        (run.status, run.stdout.len(), run.stderr.as_str()),
        (7, 1_000_000, "the end\n")
    );
}

#[test]
fn certificate_must_be_trusted_and_for_the_name() {
    let test = "certificate_must_be_trusted_and_for_the_name";
    let (Some(authority), Some(other)) = (Authority::new(test), Authority::new(test)) else {
        return;
    };
    let fake = Fake::new(list());
    let front = Front::of(&fake, Some(&authority));
    let port = front.address.port();
    let with = |authority: &Authority, url: &str| {
        let mut command = front.command(Some(authority), "agent", &["list"]);
        command.env("INNKEEPER_URL", url.replace("PORT", &port.to_string()));
        let run = silent(command);
        assert_eq!((run.status, run.stdout.as_str()), (8, ""));
        let ca_file = authority.file().display().to_string();
        run.stderr
            .replace(&port.to_string(), "PORT")
            .replace(&ca_file, "CA.pem")
    };
    assert_snapshot!(with(&other, "https://127.0.0.1:PORT"), @r"
    [ERROR] cannot reach https://127.0.0.1:PORT: no trusted authority issued its certificate
            Hint: CA.pem has another authority: ask the host's administrator for the right one.
    ");
    assert_snapshot!(with(&authority, "https://localhost:PORT"), @r"
    [ERROR] cannot reach https://localhost:PORT: its certificate is for another name than 'localhost'
            Hint: Use the gateway's own name in the URL.
    ");
    let plain = Front::of(&fake, None);
    let mut command = plain.command(Some(&authority), "agent", &["list"]);
    command.env("INNKEEPER_URL", format!("https://{}", plain.address));
    let run = silent(command);
    let text = run
        .stderr
        .replace(&plain.address.port().to_string(), "PORT");
    assert_snapshot!(text, @r"
    [ERROR] cannot reach https://127.0.0.1:PORT: the server on port PORT does not use TLS
            Hint: Check the port in the URL.
    ");
    assert_eq!(fake.requests(), Vec::<String>::new());
}

#[test]
fn unreachable_gateway_is_explained() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = closed.local_addr().expect("its address").port();
    drop(closed);
    let with = |url: &str| {
        let mut command = command("agent", &["list"]);
        command
            .env("INNKEEPER_URL", url)
            .env("INNKEEPER_TOKEN", TOKEN);
        let run = silent(command);
        run.transcript().replace(&port.to_string(), "PORT")
    };
    assert_snapshot!(with(&format!("http://127.0.0.1:{port}")), @r"
    status: 8
    --- stdout
    --- stderr
    [ERROR] cannot reach http://127.0.0.1:PORT: port PORT: Connection refused (os error 111)
            Hint: Check the port in the URL, and on the host that the web server listens on port PORT (`systemctl status caddy`).
    ");
    assert!(with("http://gateway.invalid").contains("http:// is only for this machine"));
    let unknown = with("https://gateway.invalid");
    // Machines differ in their words.
    assert!(
        unknown.contains("cannot resolve the name 'gateway.invalid'"),
        "{unknown}"
    );
    let password = with("https://kim:hunter2@gateway.invalid");
    assert!(
        password.contains("user name or a password") && !password.contains("hunter2"),
        "{password}"
    );
}

#[test]
fn missing_and_refused_tokens_are_explained() {
    let fake = Fake::new(list());
    let front = Front::of(&fake, None);
    let transcript = |run: &Run| {
        run.transcript()
            .replace(&front.address.port().to_string(), "PORT")
    };
    let mut command = front.command(None, "agent", &["list"]);
    command.env_remove("INNKEEPER_TOKEN");
    assert_snapshot!(transcript(&silent(command)), @r"
    status: 9
    --- stdout
    --- stderr
    [ERROR] there is no token for http://127.0.0.1:PORT
            Hint: Log in with `innkeeper login`, or set INNKEEPER_TOKEN, or INNKEEPER_TOKEN_FILE to the path of a file with the token, or add both URL and token with `innkeeper context add`. An administrator of the host creates tokens with `innkeeper token create`.
    ");
    assert_eq!(fake.requests(), Vec::<String>::new());
    let mut command = front.command(None, "agent", &["list"]);
    command.env("INNKEEPER_TOKEN", "ik_8_c2VjcmV0");
    assert_snapshot!(transcript(&silent(command)), @r"
    status: 9
    --- stdout
    --- stderr
    [ERROR] http://127.0.0.1:PORT does not accept the token of INNKEEPER_TOKEN
            Hint: It may be revoked, expired or incomplete, or of another host: ask the host's administrator for a new one (`innkeeper token create`). `innkeeper context list` shows which URL and token are used, and why.
    ");
    let mut command = front.command(None, "agent", &["list", "--json"]);
    command.env("INNKEEPER_TOKEN", "c2VjcmV0 c2VjcmV0");
    assert_eq!(silent(command).failure().code, Code::InvalidRequest);
}

#[test]
fn response_of_another_server_is_explained() {
    let page = |status: StatusCode| {
        any(async move || {
            (
                status,
                [(header::CONTENT_TYPE, "Text/HTML; charset=utf-8")],
                "<h1>Log in</h1>",
            )
        })
    };
    let status = |status: StatusCode| any(async move || status);
    for (responses, code, problem) in [
        (
            page(StatusCode::OK),
            Code::DaemonUnreachable,
            "it responds with a web page (200 OK)",
        ),
        (
            page(StatusCode::FORBIDDEN),
            Code::DaemonUnreachable,
            "it responds with a web page (403 Forbidden)",
        ),
        (
            page(StatusCode::BAD_GATEWAY),
            Code::DaemonUnavailable,
            "does not respond (502 Bad Gateway)",
        ),
        (
            status(StatusCode::GATEWAY_TIMEOUT),
            Code::DaemonUnavailable,
            "does not respond (504 Gateway Timeout)",
        ),
        (
            status(StatusCode::FOUND),
            Code::DaemonUnreachable,
            "it redirects to another URL (302 Found)",
        ),
        (
            status(StatusCode::NOT_FOUND),
            Code::DaemonUnreachable,
            "its response has no result (404 Not Found)",
        ),
        (
            status(StatusCode::TOO_MANY_REQUESTS),
            Code::TooManyFailures,
            "refuses further requests",
        ),
    ] {
        let fake = Fake::new(Router::new().fallback(responses));
        let front = Front::of(&fake, None);
        for arguments in [&["list", "--json"][..], &["logs", "web", "--json"]] {
            let run = silent(front.command(None, "agent", arguments));
            let failure = run.failure();
            assert_eq!(
                (failure.code, run.stdout.as_str()),
                (code, ""),
                "{failure:?}"
            );
            assert!(failure.message.contains(problem), "{failure:?}");
            assert!(
                failure.message.contains(&front.address.to_string()),
                "{failure:?}"
            );
            assert!(failure.remedy.is_some(), "{failure:?}");
        }
    }
}

#[test]
fn endless_response_is_cut_off() {
    let endless = async |_: Request| {
        let zeros =
            futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 1 << 16]));
        (StatusCode::CONFLICT, axum::body::Body::from_stream(zeros))
    };
    let fake = Fake::new(Router::new().fallback(endless));
    let front = Front::of(&fake, None);
    let run = silent(front.command(None, "agent", &["list", "--json"]));
    assert!(run.failure().message.contains("length limit"), "{run:?}");
}

#[test]
fn event_stream_resumes_when_the_gateway_returns() {
    let fake = Fake::new(
        Router::new()
            .route(
                "/v1/events",
                events([
                    Stream::Breaks(vec![done(1, "ensure-rootfs")]),
                    Stream::Ends(vec![done(2, "ensure-network"), finished(3)]),
                ]),
            )
            .route("/v1/guests/web/start", crate::fake::accept(7, Some("web")))
            .route("/v1/guests/web", crate::fake::respond(&guest("web", 1))),
    );
    let front = Front::of(&fake, None);
    let run = silent(front.command(None, "agent", &["start", "web"]));
    assert_eq!(run.status, 0, "{run:?}");
    let requests = fake.requests();
    assert!(
        requests.iter().any(|line| line.contains("after=1")),
        "{requests:?}"
    );
}

#[test]
fn commands_of_the_host_are_refused() {
    let fake = Fake::new(Router::new());
    let front = Front::of(&fake, None);
    for arguments in [
        &["backup"][..],
        &["restore"],
        &["apply", "agents.json"],
        &["prefetch"],
        &["switch-preview", "/nonexistent"],
    ] {
        let run = silent(front.command(None, "innkeeper", &[arguments, &["--json"]].concat()));
        let failure = run.failure();
        assert!(
            failure.message.contains("works on the host only"),
            "{failure:?}"
        );
        assert!(failure.remedy.is_some(), "{failure:?}");
    }
    assert_eq!(fake.requests(), Vec::<String>::new());
}
