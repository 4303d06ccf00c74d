//! `innkeeper login` against a gateway that answers as the device flow requires.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, any, delete, post};
use axum::{Json, Router};
use innkeeper_model::{Code, Failure};
use insta::assert_snapshot;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::context::Home;
use crate::fake::{Fake, Run, fail, failure_response, respond, run};
use crate::samples::guest;
use crate::tls_front::{Front, TOKEN};

/// The secret of the machine, to be found in no output.
const DEVICE_CODE: &str = "device-code-device-code-device-code-device-";

/// An answer to a poll of the machine.
#[derive(Clone)]
pub(crate) enum Answer {
    Error(&'static str),
    Failure(Failure),
    Granted,
}

/// A gateway, reached over TCP.
pub(crate) struct Host {
    pub(crate) fake: Fake,
    pub(crate) front: Front,
    pub(crate) home: Home,
    session: Arc<Mutex<Session>>,
}

/// The state of the session on the host.
#[derive(Clone, Default)]
enum Session {
    #[default]
    Valid,
    Revoked,
    Failing(Failure),
}

impl Host {
    /// Polls get one answer after the other, then always the last.
    pub(crate) fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self::with(respond(&codes()), answers)
    }

    fn with(begin: MethodRouter, answers: impl IntoIterator<Item = Answer>) -> Self {
        let answers: VecDeque<_> = answers.into_iter().collect();
        let answers = Arc::new(Mutex::new(answers));
        let poll = post(async move || {
            let mut answers = answers.lock().expect("unpoisoned");
            let next = match answers.len() {
                1 => answers.front().cloned(),
                _ => answers.pop_front(),
            };
            next.expect("an answer").response()
        });
        let session: Arc<Mutex<Session>> = Arc::default();
        let of_session = Arc::clone(&session);
        let use_session = async move |headers: HeaderMap, uri: Uri| {
            let session = of_session.lock().expect("unpoisoned").clone();
            respond_to(&session, &headers, uri.path())
        };
        let router = Router::new()
            .route("/login/device", begin)
            .route("/login/token", poll)
            .fallback(use_session);
        let fake = Fake::new(router);
        let front = Front::of(&fake, None);
        Self {
            fake,
            front,
            home: Home::new(),
            session,
        }
    }

    /// Revokes the session on the host.
    pub(crate) fn revoke(&self) {
        *self.session.lock().expect("unpoisoned") = Session::Revoked;
    }

    /// Has all requests with the session fail.
    pub(crate) fn fail_with(&self, failure: Failure) {
        *self.session.lock().expect("unpoisoned") = Session::Failing(failure);
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.front.address)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.home.command("innkeeper", arguments)
    }

    /// Logs in at this gateway. The port, which varies, is replaced in the output.
    pub(crate) fn log_in(&self, arguments: &[&str]) -> Run {
        let url = self.url();
        let login = ["login", &url, "--name", "Kim's laptop"];
        self.run(&[&login[..], arguments].concat())
    }

    /// Runs a command to its end, and checks that no secret is in its output.
    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        let mut run = run(self.command(arguments));
        let port = self.front.address.port().to_string();
        for text in [&mut run.stdout, &mut run.stderr] {
            assert!(
                !text.contains(TOKEN) && !text.contains(DEVICE_CODE),
                "{text}"
            );
            *text = text.replace(&port, "PORT");
        }
        run
    }

    pub(crate) fn contexts(&self) -> String {
        std::fs::read_to_string(self.home.file()).unwrap_or_default()
    }

    pub(crate) fn requests(&self, prefix: &str) -> usize {
        let requests = self.fake.requests();
        requests
            .iter()
            .filter(|line| line.starts_with(prefix))
            .count()
    }
}

impl Answer {
    fn response(self) -> Response {
        match self {
            Self::Error(error) => {
                (StatusCode::BAD_REQUEST, Json(json!({ "error": error }))).into_response()
            }
            Self::Failure(failure) => failure_response(&failure),
            Self::Granted => Json(json!({
                "access_token": TOKEN,
                "token_type": "Bearer",
                "session": {
                    "person": { "id": 583_231, "login": "octocat" },
                    "role": "developer",
                    "kind": "device",
                    "name": "octocat.laptop.ababab",
                    "expires_at": "2026-12-08T10:00:00Z",
                },
            }))
            .into_response(),
        }
    }
}

/// The codes, without a time between two polls.
fn codes() -> Value {
    json!({
        "device_code": DEVICE_CODE,
        "user_code": "BCDF-GHJK",
        "verification_uri": "https://api.example.org/device",
        "verification_uri_complete": "https://api.example.org/device?user_code=BCDF-GHJK",
        "expires_in": 600,
        "interval": 0,
    })
}

/// Responds to a request with the session: a list of guests, or its end.
fn respond_to(session: &Session, headers: &HeaderMap, path: &str) -> Response {
    match session {
        Session::Failing(failure) => failure_response(failure),
        Session::Valid if has_token(headers) && path == "/v1/session" => ended().into_response(),
        Session::Valid if has_token(headers) => Json(vec![guest("web", 1)]).into_response(),
        _ => (StatusCode::UNAUTHORIZED, r#"{"error":"unauthorized"}"#).into_response(),
    }
}

fn ended() -> Json<Value> {
    Json(json!({
        "id": 11, "name": "octocat.laptop.ababab", "role": "developer", "repo": null,
        "created_by": "github:583231", "created_at": "2026-12-01T10:00:00Z", "expires_at": null,
        "last_used_at": null, "revoked_at": "2026-12-01T11:00:00Z",
    }))
}

fn has_token(headers: &HeaderMap) -> bool {
    let token = headers.get(header::AUTHORIZATION);
    token.is_some_and(|value| value == &format!("Bearer {TOKEN}"))
}

#[test]
fn session_is_kept_and_used() {
    let host = Host::new([
        Answer::Error("authorization_pending"),
        Answer::Failure(Failure::new(Code::DaemonUnavailable, "innkeeperd restarts")),
        Answer::Error("slow_down"),
        Answer::Granted,
    ]);
    let run = host.log_in(&[]);
    assert_snapshot!(run.transcript(), @r"
    status: 0
    --- stdout
    [INFO] Waiting for the decision on the page.
    [OK] Logged in as octocat with the role developer until 2026-12-08T10:00:00Z. Commands use the context 127.0.0.1 from now on.
    --- stderr
    [INFO] Open https://api.example.org/device?user_code=BCDF-GHJK in a browser on any machine. It must show the code BCDF-GHJK, which is valid for 10 minutes.
    ");
    let requests = host.fake.requests();
    assert_snapshot!(requests[0], @"POST /login/device client_id=innkeeper&machine=Kim%27s%20laptop");
    assert_snapshot!(requests[1], @"POST /login/token client_id=innkeeper&grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&device_code=device-code-device-code-device-code-device-");
    assert_eq!(host.requests("POST /login/token"), 4);
    let text = host.contexts();
    assert!(
        text.contains(TOKEN) && !text.contains(DEVICE_CODE),
        "{text}"
    );
    assert_snapshot!(host.run(&["context", "list"]).ok(), @r"
    NAME       DAEMON                   TOKEN           IN USE  BY
    local      /run/innkeeper/api.sock  none
    127.0.0.1  http://127.0.0.1:PORT   login: octocat  yes     innkeeper context use
    ");
    let guests = host.home.command("agent", &["list", "-q"]);
    assert_eq!(run_to_end(guests), "web\n");

    // A variable precedes the context.
    let mut again = host.command(&["login", "--context", "127.0.0.1"]);
    again.env("INNKEEPER_URL", "https://api.example.org");
    assert_eq!(crate::fake::run(again).status, 0);
    assert_eq!(
        host.requests("DELETE /v1/session"),
        1,
        "the former session has ended"
    );
    let mut selected = host.command(&["login"]);
    selected.env("INNKEEPER_CONTEXT", "127.0.0.1");
    let stderr = crate::fake::run(selected).stderr;
    assert!(!stderr.contains("precedes"), "{stderr}");
    let mut by_variable = host.command(&["login"]);
    by_variable.env("INNKEEPER_URL", host.url());
    let stderr = crate::fake::run(by_variable).stderr;
    assert!(
        stderr.contains("INNKEEPER_URL is set and precedes"),
        "{stderr}"
    );
}

#[test]
fn result_in_json_names_the_context() {
    let host = Host::new([Answer::Granted]);
    let run = host.log_in(&["--context", "office", "--json"]);
    assert_snapshot!(run.transcript(), @r#"
    status: 0
    --- stdout
    {"name":"office","url":"http://127.0.0.1:PORT","person":"octocat","role":"developer","session":"octocat.laptop.ababab","expires_at":"2026-12-08T10:00:00Z"}
    --- stderr
    {"note":"Open https://api.example.org/device?user_code=BCDF-GHJK in a browser on any machine. It must show the code BCDF-GHJK, which is valid for 10 minutes."}
    "#);
    assert_snapshot!(host.run(&["context", "list", "--json"]).ok(), @r#"[{"name":"local","url":null,"socket":"/run/innkeeper/api.sock","token":"none","in_use":false,"reason":null},{"name":"office","url":"http://127.0.0.1:PORT","socket":null,"token":"login","person":"octocat","in_use":true,"reason":"innkeeper context use"}]"#);
}

#[test]
fn failures_leave_the_contexts_as_they_were() {
    let ends = |answer: Answer| {
        let host = Host::new([answer]);
        let run = host.log_in(&[]);
        assert!(!host.home.file().exists(), "{}", host.contexts());
        run.transcript()
    };
    assert_snapshot!(ends(Answer::Error("access_denied")), @r"
    status: 9
    --- stdout
    [INFO] Waiting for the decision on the page.
    --- stderr
    [INFO] Open https://api.example.org/device?user_code=BCDF-GHJK in a browser on any machine. It must show the code BCDF-GHJK, which is valid for 10 minutes.
    [ERROR] the login of this machine at http://127.0.0.1:PORT was refused on its page
            Hint: Run `innkeeper login` again, and choose Allow on the page. A logout there before this machine has its session refuses it, too.
    ");
    assert_snapshot!(ends(Answer::Error("expired_token")), @r"
    status: 7
    --- stdout
    [INFO] Waiting for the decision on the page.
    --- stderr
    [INFO] Open https://api.example.org/device?user_code=BCDF-GHJK in a browser on any machine. It must show the code BCDF-GHJK, which is valid for 10 minutes.
    [ERROR] the code for http://127.0.0.1:PORT has expired: nobody decided about this machine in time
            Hint: Run `innkeeper login` again, and open the page within ten minutes.
    ");
    assert_snapshot!(ends(Answer::Error("invalid_grant")), @r"
    status: 9
    --- stdout
    [INFO] Waiting for the decision on the page.
    --- stderr
    [INFO] Open https://api.example.org/device?user_code=BCDF-GHJK in a browser on any machine. It must show the code BCDF-GHJK, which is valid for 10 minutes.
    [ERROR] http://127.0.0.1:PORT does not know this login any more: its gateway was restarted, or its session was handed out
            Hint: Run `innkeeper login` again.
    ");
    let refused = Failure::new(Code::Forbidden, "this is for people").with_remedy("Ask.");
    assert_snapshot!(ends(Answer::Failure(refused)), @r"
    status: 9
    --- stdout
    [INFO] Waiting for the decision on the page.
    --- stderr
    [INFO] Open https://api.example.org/device?user_code=BCDF-GHJK in a browser on any machine. It must show the code BCDF-GHJK, which is valid for 10 minutes.
    [ERROR] this is for people
            Hint: Ask.
    ");
    assert_snapshot!(ends(Answer::Error("\u{1b}[2Junknown")), @r"
    status: 70
    --- stdout
    [INFO] Waiting for the decision on the page.
    --- stderr
    [INFO] Open https://api.example.org/device?user_code=BCDF-GHJK in a browser on any machine. It must show the code BCDF-GHJK, which is valid for 10 minutes.
    [ERROR] unexpected response of the gateway of http://127.0.0.1:PORT (400 Bad Request)
            Hint: Use the same version of programs and gateway.
    ");
}

#[test]
fn host_without_logins_is_named() {
    let with = |begin: MethodRouter| {
        let host = Host::with(begin, [Answer::Granted]);
        let run = host.log_in(&[]);
        assert_eq!(host.requests("POST /login/token"), 0);
        run.transcript()
    };
    let disabled = Failure::new(Code::LoginDisabled, "people cannot log in to this host")
        .with_remedy("Use a token.");
    assert_snapshot!(with(fail(disabled)), @r"
    status: 3
    --- stdout
    --- stderr
    [ERROR] people cannot log in to this host
            Hint: Use a token.
    ");
    let page = || async {
        (
            [(header::CONTENT_TYPE, "text/html")],
            "<p>Log in to the Wi-Fi",
        )
    };
    assert_snapshot!(with(any(page)), @r"
    status: 8
    --- stdout
    --- stderr
    [ERROR] http://127.0.0.1:PORT is not the URL of a gateway: it responds with a web page (200 OK)
            Hint: Check the URL. If this network has a proxy or a login page of its own, open the URL in a browser first.
    ");
    let unknown = || async {
        let failure = Failure::new(Code::InvalidRequest, "this URL is not part of the API");
        (StatusCode::NOT_FOUND, Json(failure))
    };
    assert_snapshot!(with(any(unknown)), @r"
    status: 3
    --- stdout
    --- stderr
    [ERROR] the gateway of http://127.0.0.1:PORT has no logins of machines
            Hint: Its version is too old: use a token of the host's administrator (`innkeeper context add`) until it is updated.
    ");
    // A page that is no URL of a browser is not shown.
    let mut hostile = codes();
    hostile["verification_uri_complete"] = "javascript:alert(1)".into();
    assert_snapshot!(with(respond(&hostile)), @r"
    status: 70
    --- stdout
    --- stderr
    [ERROR] unexpected response of the gateway of http://127.0.0.1:PORT (200 OK)
            Hint: Use the same version of programs and gateway.
    ");
    let mut hostile = codes();
    hostile["user_code"] = "\u{1b}]0;x\u{7}".into();
    assert!(!with(respond(&hostile)).contains('\u{1b}'));
}

#[test]
fn gateway_must_be_named_and_reachable() {
    let home = Home::new();
    let run = |arguments: &[&str]| home.innkeeper(arguments).transcript();
    assert_snapshot!(run(&["login"]), @r"
    status: 1
    --- stdout
    --- stderr
    [ERROR] there is no gateway to log in to: commands use this machine's own daemon
            Hint: Run `innkeeper login https://api.example.org` with the gateway's URL.
    ");
    assert_snapshot!(run(&["login", "http://api.example.org"]), @r"
    status: 1
    --- stdout
    --- stderr
    [ERROR] cannot use the URL of the command line: http:// is only for this machine (127.0.0.1, [::1] or localhost): a token would be sent unencrypted
            Hint: Use the gateway's URL, such as https://api.example.org.
    ");
    assert_snapshot!(run(&["login", "https://api.example.org", "--name", "a\nb"]), @r"
    status: 1
    --- stdout
    --- stderr
    [ERROR] 'a\nb' is not the name of a machine: use 1 to 64 printable ASCII characters
    ");
    let local = run(&["login", "https://api.example.org", "--context", "local"]);
    assert!(
        local.contains("there is no gateway to log in to"),
        "{local}"
    );
    assert_snapshot!(run(&["login", "--context", "missing"]), @r"
    status: 1
    --- stdout
    --- stderr
    [ERROR] there is no context 'missing'
            Hint: `innkeeper context list` shows all; `innkeeper context add` adds one.
    ");
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = gone.local_addr().expect("its address");
    drop(gone);
    let url = format!("http://{address}");
    let text = run(&["login", &url]).replace(&address.port().to_string(), "PORT");
    assert_snapshot!(text, @r"
    status: 8
    --- stdout
    --- stderr
    [ERROR] cannot reach http://127.0.0.1:PORT: port PORT: Connection refused (os error 111)
            Hint: Check the port in the URL, and on the host that the web server listens on port PORT (`systemctl status caddy`).
    ");
    assert!(!home.file().exists());
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let host = Host::new([Answer::Error("slow_down")]);
    let mut command = host.command(&["login", &host.url()]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().expect("it starts");
    // The program waits for the next poll then.
    host.fake.wait_for("POST /login/token");
    let id = i32::try_from(child.id()).expect("a number");
    kill_process(Pid::from_raw(id).expect("a process"), Signal::INT).expect("sent");
    let run = Run::of(child.wait_with_output().expect("it ends"));
    assert_eq!(run.status, 130, "{run:?}");
    assert!(
        run.stderr.contains("This machine is not logged in"),
        "{run:?}"
    );
    assert!(!host.home.file().exists());
}

#[test]
fn ctrl_c_ends_a_session_that_is_on_its_way() {
    let (asked, mut was_asked) = tokio::sync::mpsc::unbounded_channel();
    let (answer, answered) = tokio::sync::watch::channel(false);
    let poll = post(async move || {
        asked.send(()).expect("the test waits");
        let mut answered = answered;
        answered
            .wait_for(|is_answered| *is_answered)
            .await
            .expect("the test runs");
        Answer::Granted.response()
    });
    let router = Router::new()
        .route("/login/device", respond(&codes()))
        .route("/login/token", poll)
        .route("/v1/session", delete(async || ended()));
    let fake = Fake::new(router);
    let front = Front::of(&fake, None);
    let home = Home::new();
    let url = format!("http://{}", front.address);
    let mut command = home.command("innkeeper", &["login", &url]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    was_asked.blocking_recv().expect("a poll");
    let id = i32::try_from(child.id()).expect("a number");
    kill_process(Pid::from_raw(id).expect("a process"), Signal::INT).expect("sent");
    let mut notes = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut note = || notes.next().expect("a note").expect("text");
    while !note().contains("Waiting for a response of the gateway") {}
    answer.send(true).expect("the gateway waits");
    assert!(note().contains("This machine is not logged in"));
    let run = Run::of(child.wait_with_output().expect("it ends"));
    assert_eq!(run.status, 130, "{run:?}");
    assert!(
        fake.requests()
            .iter()
            .any(|line| line.starts_with("DELETE /v1/session"))
    );
    assert!(!home.file().exists());
}

fn run_to_end(command: Command) -> String {
    run(command).ok()
}
