//! Machines that a person lets log in: the device flow (RFC 8628), with its pages as a browser uses them.

use axum::body::Body;
use axum::http::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::support::client::{Answer, FORWARDED_FOR, get, request, send};
use crate::support::daemon::{Daemon, Received};
use crate::support::program::Program;
use crate::support::{directory, publish, token};

const ORIGIN: (&str, &str) = ("origin", "https://api.test");
/// The address of the machine. The browser's is another one.
const MACHINE: (&str, &str) = (FORWARDED_FOR, "203.0.113.5");
const GRANT_TYPE: &str = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";
/// A name that is markup.
const HOSTILE: &str = "%3Cscript%3Ealert(1)%3C%2Fscript%3E%22%27%26";

/// A gateway whose only token is 9, the session of a person in a browser.
struct Host {
    directory: tempfile::TempDir,
    /// `None` while it is away.
    daemon: Option<Daemon>,
    program: Program,
}

/// The codes of a machine.
struct Codes {
    device: String,
    user: String,
}

impl Host {
    fn start() -> Self {
        let directory = directory();
        publish(directory.path(), &[9]);
        let daemon = Daemon::start(directory.path());
        let program = Program::start(directory.path());
        Self {
            directory,
            daemon: Some(daemon),
            program,
        }
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], form: &str) -> Answer {
        let mut sent = request(path, headers, Body::from(form.to_owned()));
        *sent.method_mut() = Method::POST;
        send(&self.program.socket, sent).await
    }

    async fn begin(&self, machine: &str) -> Answer {
        let form = format!("client_id=innkeeper&machine={machine}");
        self.post("/login/device", &[MACHINE], &form).await
    }

    async fn codes(&self, machine: &str) -> Codes {
        let begun = self.begin(machine).await;
        assert_eq!(begun.status(), 200, "{}", begun.body);
        assert_eq!(begun.header("cache-control"), "no-store");
        let body = json(&begun);
        let text = |name: &str| body[name].as_str().expect("a text").to_owned();
        let user = text("user_code");
        assert_eq!(text("verification_uri"), "https://api.test/device");
        let complete = format!("https://api.test/device?user_code={user}");
        assert_eq!(text("verification_uri_complete"), complete);
        assert_eq!(
            (body["expires_in"].as_u64(), body["interval"].as_u64()),
            (Some(600), Some(5))
        );
        Codes {
            device: text("device_code"),
            user,
        }
    }

    async fn poll(&self, device: &str) -> Answer {
        let form = format!("client_id=innkeeper&grant_type={GRANT_TYPE}&device_code={device}");
        self.post("/login/token", &[MACHINE], &form).await
    }

    /// Sends the form of the page as a browser does. Returns the page that follows.
    async fn submit(&self, form: &str) -> Answer {
        let (session, csrf) = (session(), self.csrf().await);
        let form = format!("csrf={csrf}&{form}");
        self.post("/device", &[("cookie", &session), ORIGIN], &form)
            .await
    }

    async fn decide(&self, codes: &Codes, decision: &str) -> Answer {
        let form = format!("user_code={}&decision={decision}", codes.user);
        self.submit(&form).await
    }

    async fn csrf(&self) -> String {
        let session = session();
        let page = get(&self.program.socket, "/device", &[("cookie", &session)]).await;
        assert_eq!(page.status(), 200, "{}", page.body);
        let (_, rest) = page
            .body
            .split_once("name=\"csrf\" value=\"")
            .expect("a form");
        rest.split('"').next().expect("a token").to_owned()
    }

    /// Returns the requests for sessions of machines that innkeeperd received.
    fn created(&self) -> Vec<Received> {
        let mut all = self.daemon.as_ref().map_or_else(Vec::new, Daemon::received);
        all.retain(|one| one.uri == "/v1/sessions/device");
        all
    }
}

fn session() -> String {
    format!("__Host-innkeeper={}", token(9).text().expose())
}

fn json(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).expect("JSON")
}

fn error(answer: &Answer) -> String {
    let error = json(answer)["error"].as_str().map(str::to_owned);
    format!("{} {}", answer.status(), error.unwrap_or_default())
}

#[tokio::test]
async fn machine_gets_the_session_of_the_person_once() {
    let host = Host::start();
    let codes = host.codes("Kim%27s+laptop").await;
    assert_eq!(
        error(&host.poll(&codes.device).await),
        "400 authorization_pending"
    );
    assert_eq!(error(&host.poll(&codes.user).await), "400 invalid_grant");

    let shown = host
        .submit(&format!("user_code={}", codes.user.to_lowercase()))
        .await;
    assert_eq!(shown.status(), 200);
    let text = &shown.body;
    for part in [
        codes.user.as_str(),
        "Kim's laptop",
        "203.0.113.5",
        "octocat",
        "developer",
        "not this browser",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(
        error(&host.poll(&codes.device).await).split(' ').next(),
        Some("400")
    );
    assert!(host.created().is_empty(), "nobody has allowed it");

    let allowed = host.decide(&codes, "allow").await;
    assert_eq!(allowed.status(), 200);
    assert!(allowed.body.contains("may log in"), "{}", allowed.body);
    assert!(host.created().is_empty(), "the machine has not taken it");
    let granted = host.poll(&codes.device).await;
    assert_eq!(granted.status(), 200, "{}", granted.body);
    assert_eq!(granted.header("cache-control"), "no-store");
    let body = json(&granted);
    assert_eq!(
        body["access_token"].as_str(),
        Some(token(11).text().expose())
    );
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["session"]["name"], "octocat.laptop.ababab");
    assert!(
        body["expires_in"]
            .as_i64()
            .is_some_and(|seconds| seconds > 0)
    );
    let created = host.created();
    let [one] = created.as_slice() else {
        panic!("{created:?}");
    };
    assert_eq!(one.body, r#"{"machine":"Kim's laptop"}"#);
    assert_eq!(one.header("innkeeper-actor"), "token:9");
    assert_eq!(one.header("innkeeper-source"), "203.0.113.5");

    assert_eq!(error(&host.poll(&codes.device).await), "400 invalid_grant");
    assert_eq!(host.decide(&codes, "allow").await.status(), 400);
    assert_eq!(host.created().len(), 1);
}

#[tokio::test]
async fn refusal_and_logout_end_the_request() {
    let host = Host::start();
    let codes = host.codes("laptop").await;
    let refused = host.decide(&codes, "refuse").await;
    assert!(refused.body.contains("may not log in"), "{}", refused.body);
    assert_eq!(
        host.decide(&codes, "allow").await.status(),
        400,
        "it is decided"
    );
    assert_eq!(error(&host.poll(&codes.device).await), "400 access_denied");
    assert_eq!(error(&host.poll(&codes.device).await), "400 invalid_grant");

    // The person's session ends before the machine takes its own.
    let codes = host.codes("laptop").await;
    assert_eq!(host.decide(&codes, "allow").await.status(), 200);
    publish(host.directory.path(), &[8]);
    assert_eq!(error(&host.poll(&codes.device).await), "400 access_denied");
    publish(host.directory.path(), &[9]);
    assert_eq!(error(&host.poll(&codes.device).await), "400 invalid_grant");
    assert!(host.created().is_empty());
}

#[tokio::test]
async fn allowed_request_outlives_a_restart_of_the_daemon() {
    let mut host = Host::start();
    let codes = host.codes("laptop").await;
    assert_eq!(host.decide(&codes, "allow").await.status(), 200);
    let directory = host.directory.path().to_owned();
    host.daemon = None;
    assert_eq!(host.poll(&codes.device).await.status(), 503);
    host.daemon = Some(Daemon::start(&directory));
    assert_eq!(host.poll(&codes.device).await.status(), 200);
    assert_eq!(host.created().len(), 1);
}

#[tokio::test]
async fn machine_that_does_not_wait_is_slowed_down() {
    let host = Host::start();
    let codes = host.codes("laptop").await;
    let mut answers = Vec::new();
    // The first poll is never early. A machine of the tests that stands still for seconds makes a later one be in time, too.
    for _ in 0..20 {
        answers.push(error(&host.poll(&codes.device).await));
    }
    assert_eq!(answers[0], "400 authorization_pending");
    assert!(answers.contains(&"400 slow_down".to_owned()), "{answers:?}");
    // A decision is returned also to a poll that is early.
    host.decide(&codes, "allow").await;
    assert_eq!(host.poll(&codes.device).await.status(), 200);
}

#[tokio::test]
async fn page_is_for_people_who_have_logged_in() {
    let host = Host::start();
    let codes = host.codes("laptop").await;
    let path = format!("/device?user_code={}", codes.user);
    let socket = &host.program.socket;
    let sent = get(socket, &path, &[]).await;
    let back = format!("/login?return=/device%3Fuser_code%3D{}", codes.user);
    assert_eq!(
        (sent.status(), sent.header("location")),
        (302, back.as_str())
    );
    let login = get(socket, &back, &[]).await;
    assert_eq!(
        login.header("location"),
        "https://github.test/authorize?state=x"
    );
    let own = session();
    let returned = get(socket, &back, &[("cookie", &own)]).await;
    assert_eq!(returned.header("location"), path);
    // Nothing of a URL but a code gets on the page.
    for bad in [
        "%22%3E%3Cscript%3E",
        "a%0d%0ab",
        "BCDF-GHJ",
        "",
        "&user_code=x",
    ] {
        let sent = get(socket, &format!("/device?user_code={bad}"), &[]).await;
        assert_eq!(sent.header("location"), "/login?return=/device", "{bad}");
        let shown = get(
            socket,
            &format!("/device?user_code={bad}"),
            &[("cookie", &own)],
        )
        .await;
        assert_eq!(shown.status(), 200, "{bad}");
        assert!(
            !shown.body.contains("<script") && !shown.body.contains("GHJ"),
            "{}",
            shown.body
        );
    }
    // A link fills in the code, and shows nothing of the machine.
    let page = get(socket, &path, &[("cookie", &own)]).await;
    assert!(
        page.body.contains(&codes.user) && !page.body.contains("203.0.113.5"),
        "{}",
        page.body
    );
    for (name, value) in [
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
    ] {
        assert_eq!(page.header(name), value);
    }
    let policy = page.header("content-security-policy");
    for rule in [
        "default-src 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ] {
        assert!(policy.contains(rule), "{policy}");
    }
    let logged_out = host.post("/device", &[ORIGIN], "csrf=x&user_code=x").await;
    assert_eq!(
        (logged_out.status(), logged_out.header("location")),
        (401, "")
    );
}

#[tokio::test]
async fn pages_of_other_sites_cannot_decide() {
    let host = Host::start();
    let codes = host.codes("laptop").await;
    let (own, csrf) = (session(), host.csrf().await);
    let cookie = ("cookie", own.as_str());
    let form = |csrf: &str| format!("csrf={csrf}&user_code={}&decision=allow", codes.user);
    let good = form(&csrf);
    for (headers, form) in [
        (vec![cookie], good.clone()),
        (vec![cookie, ("origin", "https://web.test")], good.clone()),
        (
            vec![cookie, ("origin", "https://api.test.evil.example")],
            good.clone(),
        ),
        (vec![cookie, ("origin", "null")], good.clone()),
        (
            vec![cookie, ("sec-fetch-site", "same-origin")],
            good.clone(),
        ),
        (vec![cookie, ORIGIN], form("")),
        (vec![cookie, ORIGIN], form("x")),
        (vec![cookie, ORIGIN], format!("{good}&decision=refuse")),
        (vec![cookie, ORIGIN], good.replace("allow", "other")),
    ] {
        let refused = host.post("/device", &headers, &form).await;
        assert_eq!(refused.status(), 403, "{headers:?} {form}");
        assert!(!refused.body.contains("laptop"), "{}", refused.body);
    }
    let path = format!("/device?{good}");
    assert_eq!(
        get(&host.program.socket, &path, &[cookie]).await.status(),
        200
    );
    assert_eq!(
        error(&host.poll(&codes.device).await),
        "400 authorization_pending"
    );
    // A page cannot begin requests from its visitors' addresses either.
    let page = [MACHINE, ("origin", "https://web.test")];
    let begun = host
        .post("/login/device", &page, "client_id=innkeeper&machine=a")
        .await;
    assert_eq!(error(&begun), "400 invalid_request");
}

#[tokio::test]
async fn hostile_name_of_a_machine_stays_text() {
    let host = Host::start();
    let codes = host.codes(HOSTILE).await;
    let shown = host.submit(&format!("user_code={}", codes.user)).await;
    let allowed = host.decide(&codes, "allow").await;
    for page in [&shown.body, &allowed.body] {
        assert!(
            page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"),
            "{page}"
        );
        assert!(!page.contains("<script"), "{page}");
    }
    let long = "a".repeat(65);
    for machine in [
        "",
        "+a",
        "a%0a",
        "%1b%5b2J",
        "%e2%80%aea",
        "%00",
        "%ff",
        long.as_str(),
    ] {
        assert_eq!(
            error(&host.begin(machine).await),
            "400 invalid_request",
            "{machine}"
        );
    }
    let huge = format!("client_id=innkeeper&machine={}", "a".repeat(2000));
    let refused = host.post("/login/device", &[MACHINE], &huge).await;
    assert_eq!(refused.status(), 413);
    let other = "client_id=other&machine=a";
    let refused = host.post("/login/device", &[MACHINE], other).await;
    assert_eq!(error(&refused), "400 invalid_client");
    let form = format!(
        "client_id=innkeeper&grant_type=password&device_code={}",
        codes.device
    );
    let refused = host.post("/login/token", &[MACHINE], &form).await;
    assert_eq!(error(&refused), "400 unsupported_grant_type");
}

#[tokio::test]
async fn requests_and_guesses_are_limited() {
    let host = Host::start();
    for _ in 0..10 {
        host.codes("laptop").await;
    }
    let refused = host.begin("laptop").await;
    assert_eq!(refused.status(), 429);
    assert_eq!(json(&refused)["code"], "too_many_requests");
    let form = "client_id=innkeeper&machine=a";
    let elsewhere = [(FORWARDED_FOR, "203.0.113.6")];
    let codes = host.post("/login/device", &elsewhere, form).await;
    let user = json(&codes)["user_code"]
        .as_str()
        .expect("a code")
        .to_owned();

    let mut statuses = Vec::new();
    for _ in 0..12 {
        let guess = host.submit("user_code=BCDF-GHJK").await;
        statuses.push(guess.status());
    }
    assert_eq!(statuses[..10], [400; 10]);
    assert_eq!(*statuses.last().expect("some"), 429);
    // The right code would be one more guess.
    let late = host.submit(&format!("user_code={user}")).await;
    assert_eq!(late.status(), 429);
    assert!(!late.body.contains("203.0.113.6"), "{}", late.body);
}

#[tokio::test]
async fn host_without_logins_says_so() {
    let host = Host::start();
    host.daemon.as_ref().expect("it runs").disable_logins();
    let refused = host.begin("laptop").await;
    assert_eq!(refused.status(), 404, "{}", refused.body);
    assert_eq!(json(&refused)["code"], "login_disabled");
}

#[tokio::test]
async fn form_that_does_not_arrive_holds_nothing() {
    let directory = directory();
    publish(directory.path(), &[9]);
    let _daemon = Daemon::start(directory.path());
    let program = Program::start_with(directory.path(), "timeout_seconds = 1");
    for path in ["/login/device", "/login/token", "/device", "/logout"] {
        let mut stream = UnixStream::connect(&program.socket)
            .await
            .expect("connects");
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: api.test\r\ncontent-length: 100\r\n\r\nclient");
        stream.write_all(head.as_bytes()).await.expect("sends");
        let mut text = Vec::new();
        drop(stream.read_to_end(&mut text).await);
        let text = String::from_utf8_lossy(&text);
        assert!(text.starts_with("HTTP/1.1 408 "), "{path}: {text}");
    }
}
