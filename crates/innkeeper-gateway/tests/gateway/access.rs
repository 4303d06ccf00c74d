//! Authentication, and the requests that innkeeperd receives.

use axum::body::Body;
use rustix::process::Signal;

use crate::support::client::{FORWARDED_FOR, get, request, send};
use crate::support::daemon::Daemon;
use crate::support::program::Program;
use crate::support::{SECRET, bearer, directory, publish, token};

#[tokio::test]
async fn token_is_passed_on_as_its_actor() {
    let directory = directory();
    publish(directory.path(), &[7]);
    let daemon = Daemon::start(directory.path());
    let program = Program::start(directory.path());
    let token = bearer(7);
    let headers = [
        ("authorization", token.as_str()),
        ("innkeeper-actor", "token:1"),
        ("innkeeper-source", "127.0.0.1"),
        ("cookie", "a=b"),
        ("content-type", "application/json"),
    ];
    let sent = request("/v1/guests?all=1", &headers, "{}");
    let answer = send(&program.socket, sent).await;
    assert_eq!(
        (answer.status(), answer.body.as_str()),
        (200, "{\"length\":2}")
    );
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");

    let file = format!("bearer {SECRET}");
    let headers = [
        ("authorization", file.as_str()),
        (FORWARDED_FOR, "198.51.100.1, 2001:db8::7"),
    ];
    assert_eq!(
        get(&program.socket, "/v1/guests", &headers).await.status(),
        200
    );

    let received = daemon.received();
    let [first, second] = received.as_slice() else {
        panic!("{received:?}");
    };
    assert_eq!(first.uri, "/v1/guests?all=1");
    assert_eq!(first.header("innkeeper-actor"), "token:7");
    assert_eq!(first.header("innkeeper-source"), "192.0.2.1");
    assert_eq!(second.header("innkeeper-actor"), "file:ci");
    assert_eq!(second.header("innkeeper-source"), "2001:db8::7");
    for request in &received {
        assert!(request.headers.get("authorization").is_none());
        assert!(request.headers.get("cookie").is_none());
        assert_eq!(request.headers.get_all("innkeeper-actor").iter().count(), 1);
        assert_eq!(
            request.headers.get_all("innkeeper-source").iter().count(),
            1
        );
    }
}

#[tokio::test]
async fn request_without_a_valid_token_does_not_pass() {
    let directory = directory();
    publish(directory.path(), &[7]);
    let daemon = Daemon::start(directory.path());
    let program = Program::start(directory.path());
    let valid = token(7).text().expose().to_owned();
    let mut wrong = valid.clone();
    wrong.replace_range(
        10..11,
        if wrong.as_bytes()[10] == b'A' {
            "B"
        } else {
            "A"
        },
    );
    let values = [
        None,
        Some(String::new()),
        Some(valid.clone()),
        Some(format!("Basic {valid}")),
        Some(format!("Bearer {wrong}")),
        Some(bearer(8)),
        Some("Bearer ik_7_".to_owned()),
        Some(format!("Bearer {SECRET}x")),
        Some("Bearer ci".to_owned()),
    ];
    for (index, value) in values.iter().enumerate() {
        // Each from an address of its own, so that none is limited. One claims to be on the host itself.
        let address = format!("203.0.113.{index}, 127.0.0.{}", index + 1);
        let mut headers = vec![(FORWARDED_FOR, address.as_str())];
        headers.extend(value.iter().map(|value| ("authorization", value.as_str())));
        let answer = get(&program.socket, "/v1/guests", &headers).await;
        assert_eq!(answer.status(), 401, "{value:?}");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        let fields: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        assert_eq!(fields["error"], "unauthorized");
        assert_eq!(fields["code"], "unauthorized");
        assert!(fields["message"].is_string() && fields["remedy"].is_string());
    }
    assert_eq!(daemon.received().len(), 0);
}

#[tokio::test]
async fn other_paths_are_not_passed_on() {
    let directory = directory();
    publish(directory.path(), &[7]);
    let daemon = Daemon::start(directory.path());
    let program = Program::start(directory.path());
    let token = bearer(7);
    for path in [
        "/",
        "/metrics",
        "/v1",
        "/v1/../metrics/x",
        "/.env",
        "/intake",
    ] {
        let answer = get(&program.socket, path, &[("authorization", &token)]).await;
        let expected = if path.starts_with("/v1/") { 200 } else { 404 };
        assert_eq!(answer.status(), expected, "{path}");
    }
    // The daemon receives the path as it is, and knows no such call.
    assert_eq!(daemon.received().len(), 1);
    let answer = get(&program.socket, "/healthz", &[]).await;
    assert_eq!((answer.status(), answer.body.as_str()), (200, "ok"));
    let ready = get(&program.socket, "/readyz", &[]).await;
    assert_eq!((ready.status(), ready.body.as_str()), (200, "ready"));
}

#[tokio::test]
async fn revoked_token_is_refused_at_once() {
    let directory = directory();
    let daemon = Daemon::start(directory.path());
    let program = Program::start(directory.path());
    let [seven, eight] = [bearer(7), bearer(8)];
    let expect = async |token: &str, status: u16| {
        let answer = get(&program.socket, "/v1/guests", &[("authorization", token)]).await;
        assert_eq!(answer.status(), status);
    };
    // Until innkeeperd has written the tokens, nobody knows.
    expect(&seven, 503).await;
    publish(directory.path(), &[7]);
    expect(&seven, 200).await;
    expect(&eight, 401).await;
    publish(directory.path(), &[7, 8]);
    expect(&eight, 200).await;
    publish(directory.path(), &[8]);
    expect(&seven, 401).await;
    assert_eq!(daemon.received().len(), 2);
}

#[tokio::test]
async fn file_of_tokens_is_read_again_on_sighup() {
    let directory = directory();
    let daemon = Daemon::start(directory.path());
    let program = Program::start(directory.path());
    let file = directory.path().join("tokens.env");
    let next = "correct-horse-battery";
    let expect = async |secret: &str, status: u16| {
        let value = format!("Bearer {secret}");
        let answer = get(&program.socket, "/v1/guests", &[("authorization", &value)]).await;
        assert_eq!(answer.status(), status, "{secret}");
    };
    let reload = |text: &str| {
        std::fs::write(&file, text).expect("writes");
        program.signal(Signal::HUP);
        program.wait_for("RELOADING=1");
        program.wait_for("READY=1");
    };
    expect(SECRET, 200).await;
    expect(next, 401).await;
    reload(&format!("SANDBOXD_API_TOKENS=ci:{SECRET},ci:{next}\n"));
    expect(SECRET, 200).await;
    expect(next, 200).await;
    // The former ones stay in force.
    reload("SANDBOXD_API_TOKENS=ci\n");
    expect(SECRET, 200).await;
    reload(&format!("SANDBOXD_API_TOKENS=ci:{next}\n"));
    expect(SECRET, 401).await;
    expect(next, 200).await;
    assert_eq!(daemon.received().len(), 5);
}

#[tokio::test]
async fn readiness_names_the_parts_that_fail() {
    let directory = directory();
    publish(directory.path(), &[7]);
    let daemon = Daemon::start(directory.path());
    daemon.fail(&["caddy", "disk"]);
    let program = Program::start(directory.path());
    let ready = get(&program.socket, "/readyz", &[]).await;
    assert_eq!(ready.status(), 503);
    assert_eq!(ready.body, "not ready: caddy, disk");

    drop(program);
    drop(daemon);
    let program = Program::start(directory.path());
    let ready = get(&program.socket, "/readyz", &[]).await;
    assert_eq!(ready.status(), 503);
    assert_eq!(ready.body, "not ready: daemon");
}

#[tokio::test]
async fn daemon_that_is_away_is_reported_with_a_time_to_retry() {
    let directory = directory();
    publish(directory.path(), &[7]);
    let program = Program::start(directory.path());
    let token = bearer(7);
    let headers = [("authorization", token.as_str())];
    let away = send(&program.socket, request("/v1/guests", &headers, "{}")).await;
    assert_eq!(away.status(), 503);
    assert_ne!(away.header("retry-after"), "");
    assert!(
        away.body.contains("\"daemon_unavailable\""),
        "{}",
        away.body
    );
    let daemon = Daemon::start(directory.path());
    let there = send(
        &program.socket,
        request("/v1/guests", &headers, Body::empty()),
    )
    .await;
    assert_eq!(there.status(), 200);
    assert_eq!(daemon.received().len(), 1);
}
