//! Only the webhook hands over deliveries, and that is all that it can do.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use innkeeper_model::preview::intake::{INTAKE_PATH, IntakeAnswer, MAX_BATCH, MAX_BODY};
use innkeeper_model::{Code, GuestName};

use crate::github::{NOBODY, command, program_file};
use crate::house::House;
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

/// Whether a program of this user, with this group and these supplementary groups, gets an answer on a socket.
fn answers(house: &House, socket: &Path, user: u32, group: u32, groups: &str) -> bool {
    // The build's directory may be closed to others.
    let program = house.sandbox.path().join("innkeeper");
    let built = program_file().with_file_name("innkeeper");
    fs::copy(built, &program).expect("built: cargo build --workspace");
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
    // The intake's answer to this is that it knows no such call.
    let code = output.status.code();
    assert!(matches!(code, Some(0 | 1 | 8)), "{output:?}");
    code != Some(8)
}

/// The answer to a call whose body is announced to be so long, and never sent.
fn announced(socket: &Path, length: usize) -> String {
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
fn the_intake_is_open_to_the_webhooks_group_alone() {
    let house = House::new();
    let _daemon = house.sandbox.start();
    let intake = house.intake_socket();
    let meta = fs::metadata(&intake).expect("there");
    assert_eq!(meta.permissions().mode() & 0o777, 0o660);
    assert_eq!((meta.uid(), meta.gid()), (0, NOBODY));
    assert!(answers(&house, &intake, NOBODY, NOBODY, ""), "the webhook");
    assert!(answers(&house, &intake, 0, 0, ""), "root");
    assert!(!answers(&house, &intake, NOBODY, 4242, ""), "a stranger");
    assert!(
        !answers(&house, &intake, 4242, 4242, &NOBODY.to_string()),
        "a person who belongs to the group is not the webhook"
    );
    wait_until("it is said who was turned away", || {
        house.sandbox.log().contains("gid=4242")
    });
    let api = house.sandbox.path().join("run/api.sock");
    assert!(
        !answers(&house, &api, NOBODY, NOBODY, ""),
        "the webhook at the API"
    );
}

#[test]
fn without_the_group_root_alone_hands_over_deliveries() {
    let house = House::new();
    let daemon = house
        .sandbox
        .start_with(&[("INNKEEPER_WEBHOOK_GROUP", "no-such-group")]);
    let mode = |name: &str| {
        let meta = fs::metadata(house.sandbox.path().join("run").join(name)).expect("there");
        meta.permissions().mode() & 0o777
    };
    assert_eq!(mode("intake.sock"), 0o600);
    assert!(!answers(&house, &house.intake_socket(), NOBODY, NOBODY, ""));
    daemon.stop();
}

#[test]
fn the_intake_takes_deliveries_and_nothing_else() {
    let house = House::new();
    let _daemon = house.sandbox.start();
    let intake = Client::new(house.intake_socket());
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
    let refused = |body: &str| intake.call("POST", INTAKE_PATH, body).status;
    assert_eq!(refused(""), 400);
    assert_eq!(refused("{}"), 400);
    let mut misspelt = request("d-0", "opened");
    misspelt["received"] = misspelt["received_at"].take();
    assert_eq!(refused(&serde_json::json!([misspelt]).to_string()), 400);
    let many = vec![request("d-0", "opened"); MAX_BATCH + 1];
    assert_eq!(refused(&serde_json::json!(many).to_string()), 400);
    assert!(announced(&house.intake_socket(), MAX_BODY + 1).starts_with("HTTP/1.1 413 "));
    assert!(house.list(&[]).is_empty(), "something of it was recorded");

    // The API's own calls of the same name are other calls.
    let api = house.sandbox.client();
    assert_eq!(api.call("POST", INTAKE_PATH, "").status, 405);
}

#[test]
fn answers_come_in_the_order_of_the_deliveries() {
    let house = House::new();
    let _daemon = house.sandbox.start();
    let intake = Client::new(house.intake_socket());
    let body = serde_json::json!([
        request("a", "opened"),
        request("a", "opened"),
        request("b", "closed"),
        request("c", "synchronize"),
    ]);
    let answers: Vec<IntakeAnswer> = intake.call("POST", INTAKE_PATH, &body.to_string()).read();
    let slug: GuestName = "web-7".parse().expect("a name");
    let accepted = || IntakeAnswer::Accepted { slug: slug.clone() };
    let duplicate = IntakeAnswer::Duplicate { slug: slug.clone() };
    assert_eq!(answers, [accepted(), duplicate, accepted(), accepted()]);
    let none: Vec<IntakeAnswer> = intake.call("POST", INTAKE_PATH, "[]").read();
    assert_eq!(none, []);
}

#[test]
fn no_two_pull_requests_get_the_same_name() {
    let house = House::new();
    let _daemon = house.sandbox.start();
    let intake = Client::new(house.intake_socket());
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
    assert_eq!(record("c", "Octo/Web"), "web-7", "it is the first one");
    assert_eq!(record("d", "Other/web"), other);
}
