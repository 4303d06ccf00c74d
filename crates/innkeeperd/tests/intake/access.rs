//! Access control of the intake.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use innkeeper_model::preview::intake::{INTAKE_PATH, IntakeAnswer, MAX_BATCH, MAX_BODY};
use innkeeper_model::{Code, GuestName};

use crate::github::{NOBODY, command, program_file};
use crate::host::IntakeHost;
use crate::support::{Client, wait_until};

fn request(id: &str, action: &str) -> serde_json::Value {
    serde_json::json!({
        "event": {
            "delivery": id,
            "action": action,
            "pull_request": { "repo": "octo/web", "number": 7 },
            "head_repo": "octo/web",
            "head_sha": "0123456789abcdef0123456789abcdef01234567",
            "head_branch": "topic",
            "base_branch": "main",
            "is_fork": false,
            "author": "alice",
            "sender": "alice",
        },
        "received_at": "2026-11-20T10:00:00Z",
    })
}

/// Reports whether a socket responds to a program with this user, group and supplementary groups.
fn responds(host: &IntakeHost, socket: &Path, user: u32, group: u32, groups: &str) -> bool {
    // The build's directory may be inaccessible for other users.
    let program = host.sandbox.path().join("innkeeper");
    let built = program_file().with_file_name("innkeeper");
    // By a program: another thread can fork while a copy by this process is open for writing, and then it cannot run.
    let copied = command("cp").arg(built).arg(&program).status();
    assert!(copied.expect("runs").success(), "cargo build --workspace");
    let groups = match groups {
        "" => "--clear-groups".to_owned(),
        groups => format!("--groups={groups}"),
    };
    let output = command("setpriv")
        .args([format!("--reuid={user}"), format!("--regid={group}")])
        .arg(groups)
        .arg(program)
        .args(["status", "--json", "--socket"])
        .arg(socket)
        .output()
        .expect("runs");
    // The intake rejects the call itself with 1; 8 means no connection.
    let code = output.status.code();
    assert!(matches!(code, Some(0 | 1 | 8)), "{output:?}");
    code != Some(8)
}

/// Returns the response to a call with this content-length and no body.
fn response_to_length(socket: &Path, length: usize) -> String {
    let mut stream = UnixStream::connect(socket).expect("connects");
    write!(
        stream,
        "POST {INTAKE_PATH} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    )
    .expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answers");
    answer
}

#[test]
fn the_intake_is_open_to_the_webhooks_group_only() {
    let host = IntakeHost::new();
    let _daemon = host.sandbox.start();
    let intake = host.intake_socket();
    let meta = fs::metadata(&intake).expect("there");
    assert_eq!(meta.permissions().mode() & 0o777, 0o660);
    assert_eq!((meta.uid(), meta.gid()), (0, NOBODY));
    assert!(responds(&host, &intake, NOBODY, NOBODY, ""), "the webhook");
    assert!(responds(&host, &intake, 0, 0, ""), "root");
    assert!(!responds(&host, &intake, NOBODY, 4242, ""), "a stranger");
    assert!(
        !responds(&host, &intake, 4242, 4242, &NOBODY.to_string()),
        "a member of the group is not the webhook"
    );
    wait_until("the rejection is logged", || {
        host.sandbox.log().contains("gid=4242")
    });
    let api = host.sandbox.path().join("run/api.sock");
    assert!(
        !responds(&host, &api, NOBODY, NOBODY, ""),
        "the webhook at the API"
    );
}

#[test]
fn without_the_group_only_root_hands_over_deliveries() {
    let host = IntakeHost::new();
    let daemon = host
        .sandbox
        .start_with(&[("INNKEEPER_WEBHOOK_GROUP", "no-such-group")]);
    let mode = |name: &str| {
        let meta = fs::metadata(host.sandbox.path().join("run").join(name)).expect("there");
        meta.permissions().mode() & 0o777
    };
    assert_eq!(mode("intake.sock"), 0o600);
    assert!(!responds(&host, &host.intake_socket(), NOBODY, NOBODY, ""));
    daemon.stop();
}

#[test]
fn the_intake_accepts_only_deliveries() {
    let host = IntakeHost::new();
    let _daemon = host.sandbox.start();
    let intake = Client::new(host.intake_socket());
    for (method, path) in [
        ("GET", "/v1/status"),
        ("GET", "/v1/guests"),
        ("POST", "/v1/guests"),
        ("POST", "/v1/deliveries/a/replay"),
    ] {
        let answer = intake.call(method, path, "");
        assert_eq!(answer.failure().code, Code::InvalidRequest, "{path}");
    }
    assert_eq!(intake.call("GET", INTAKE_PATH, "").status, 405);
    let status = |body: &str| intake.call("POST", INTAKE_PATH, body).status;
    assert_eq!(status(""), 400);
    assert_eq!(status("{}"), 400);
    let mut misspelt = request("d-0", "opened");
    misspelt["received"] = misspelt["received_at"].take();
    assert_eq!(status(&serde_json::json!([misspelt]).to_string()), 400);
    let many = vec![request("d-0", "opened"); MAX_BATCH + 1];
    assert_eq!(status(&serde_json::json!(many).to_string()), 400);
    assert!(response_to_length(&host.intake_socket(), MAX_BODY + 1).starts_with("HTTP/1.1 413 "));
    assert!(
        host.list(&[]).is_empty(),
        "a rejected delivery was recorded"
    );

    // The API has a different call of the same path.
    let api = host.sandbox.client();
    assert_eq!(api.call("POST", INTAKE_PATH, "").status, 405);
}

#[test]
fn answers_are_in_the_order_of_the_deliveries() {
    let host = IntakeHost::new();
    let _daemon = host.sandbox.start();
    let intake = Client::new(host.intake_socket());
    let body = serde_json::json!([
        request("a", "opened"),
        request("a", "opened"),
        request("b", "closed"),
        request("c", "synchronize"),
    ]);
    let answers: Vec<IntakeAnswer> = intake.call("POST", INTAKE_PATH, &body.to_string()).read();
    let slug: GuestName = "web-7".parse().expect("a name");
    let accepted = || IntakeAnswer::Accepted { slug: slug.clone() };
    assert_eq!(answers, [accepted(), accepted(), accepted(), accepted()]);
    let none: Vec<IntakeAnswer> = intake.call("POST", INTAKE_PATH, "[]").read();
    assert_eq!(none, []);
}

#[test]
fn slugs_of_pull_requests_are_unique() {
    let host = IntakeHost::new();
    let _daemon = host.sandbox.start();
    let intake = Client::new(host.intake_socket());
    let record = |id: &str, repo: &str| {
        let mut request = request(id, "opened");
        request["event"]["pull_request"]["repo"] = repo.into();
        let body = serde_json::json!([request]).to_string();
        let answers: Vec<IntakeAnswer> = intake.call("POST", INTAKE_PATH, &body).read();
        match answers.as_slice() {
            [IntakeAnswer::Accepted { slug }] => slug.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(record("a", "octo/web"), "web-7");
    let other = record("b", "other/web");
    assert!(other.starts_with("web-7-"), "{other}");
    assert_eq!(
        record("c", "Octo/Web"),
        "web-7",
        "the same repository as the first one"
    );
    assert_eq!(record("d", "Other/web"), other);
}
