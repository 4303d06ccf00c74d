//! A fake daemon on a socket of its own, and the programs run against it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, any, get};
use axum::{Json, Router};
use futures_util::StreamExt as _;
use futures_util::stream;
use innkeeper_model::api::Accepted;
use innkeeper_model::preview::PreviewView;
use innkeeper_model::preview::api::PreviewAccepted;
use innkeeper_model::{Event, Failure, GuestName, OperationId};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use serde::Serialize;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// The socket's directory, which outlives a daemon that is stopped and started again.
pub(crate) fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// A daemon that answers as its router says. It ends when dropped, with all connections.
pub(crate) struct Fake {
    socket: PathBuf,
    seen: watch::Receiver<Vec<String>>,
    runtime: Option<Runtime>,
    _directory: Option<TempDir>,
}

impl Fake {
    pub(crate) fn new(router: Router) -> Self {
        let directory = directory();
        let mut fake = Self::at(&directory.path().join("api.sock"), router);
        fake._directory = Some(directory);
        fake
    }

    /// One that listens on a given path.
    pub(crate) fn at(socket: &Path, router: Router) -> Self {
        if socket.exists() {
            std::fs::remove_file(socket).expect("the former socket");
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(socket).expect("a socket")
        };
        let (record, seen) = watch::channel(Vec::new());
        let router = router.layer(middleware::from_fn_with_state(Arc::new(record), remember));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            socket: socket.to_owned(),
            seen,
            runtime: Some(runtime),
            _directory: None,
        }
    }

    /// The requests so far: method, path with query, body.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.borrow().clone()
    }

    /// Returns when a request has come that starts with this.
    pub(crate) fn wait_for(&self, request: &str) {
        let mut seen = self.seen.clone();
        let wait = seen.wait_for(|seen| seen.iter().any(|line| line.starts_with(request)));
        let runtime = self.runtime.as_ref().expect("it runs");
        runtime.block_on(async { wait.await.expect("it runs") });
    }

    pub(crate) fn agent(&self, arguments: &[&str]) -> Run {
        run(self.command("agent", arguments))
    }

    pub(crate) fn preview(&self, arguments: &[&str]) -> Run {
        run(self.command("preview", arguments))
    }

    pub(crate) fn innkeeper(&self, arguments: &[&str]) -> Run {
        run(self.command("innkeeper", arguments))
    }

    /// A program of ours that will speak to this daemon.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = command(program, arguments);
        command.env("INNKEEPER_SOCKET", &self.socket);
        command
    }

    /// Starts a program whose standard output is read while it runs.
    pub(crate) fn spawn(&self, program: &str, arguments: &[&str]) -> Child {
        self.command(program, arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts")
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

/// How a program ended and what it printed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(output: std::process::Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self {
            status: output.status.code().expect("an exit code"),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Everything in one text, with the spans of time made equal.
    pub(crate) fn whole(&self) -> String {
        let text = format!(
            "status: {}\n--- stdout\n{}--- stderr\n{}",
            self.status, self.stdout, self.stderr
        );
        without_times(&text)
    }

    /// Standard output of a command that did what it was asked for.
    pub(crate) fn ok(self) -> String {
        assert_eq!(
            (self.status, self.stderr.as_str()),
            (0, ""),
            "{}",
            self.stdout
        );
        self.stdout
    }

    /// The failure that a program is told on standard error.
    pub(crate) fn failure(&self) -> Failure {
        serde_json::from_str(&self.stderr).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// `61 ms` and `"elapsed_ms":61` differ from run to run.
fn without_times(text: &str) -> String {
    let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
    for at in 1..words.len() {
        let unit =
            words[at].starts_with("ms.") && words[at - 1].bytes().all(|b| b.is_ascii_digit());
        if unit {
            words[at - 1] = "N".to_owned();
        }
    }
    let mut text = words.join(" ");
    let key = "\"elapsed_ms\":";
    let mut from = 0;
    while let Some(at) = text[from..].find(key) {
        let start = from + at + key.len();
        let digits = text[start..].bytes().take_while(u8::is_ascii_digit).count();
        text.replace_range(start..start + digits, "0");
        from = start;
    }
    text
}

/// A program of ours in an environment that is always the same.
#[expect(
    clippy::disallowed_methods,
    reason = "the tests run our own programs, here only"
)]
pub(crate) fn command(program: &str, arguments: &[&str]) -> Command {
    let path = match program {
        "agent" => env!("CARGO_BIN_EXE_agent"),
        "preview" => env!("CARGO_BIN_EXE_preview"),
        "innkeeper" => env!("CARGO_BIN_EXE_innkeeper"),
        other => panic!("no program of ours is called {other}"),
    };
    let mut command = Command::new(path);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("COLUMNS", "100")
        .env("INNKEEPER_SOCKET", "/nonexistent/api.sock");
    command
}

/// Runs it to its end with nothing to read.
pub(crate) fn run(mut command: Command) -> Run {
    Run::of(command.stdin(Stdio::null()).output().expect("it runs"))
}

async fn remember(
    State(record): State<Arc<watch::Sender<Vec<String>>>>,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX)
        .await
        .expect("the body");
    let line = format!(
        "{} {} {}",
        parts.method,
        parts.uri,
        String::from_utf8_lossy(&body)
    );
    record.send_modify(|seen| seen.push(line.trim_end().to_owned()));
    next.run(Request::from_parts(parts, Body::from(body))).await
}

/// Always the same answer.
pub(crate) fn answer(value: &impl Serialize) -> MethodRouter {
    let value = serde_json::to_value(value).expect("JSON");
    any(move || async move { Json(value) })
}

/// One answer after the other, and the last one for ever.
pub(crate) fn answers(
    answers: impl IntoIterator<Item = Result<PreviewView, Failure>>,
) -> MethodRouter {
    let left: Arc<Mutex<VecDeque<_>>> = Arc::new(Mutex::new(answers.into_iter().collect()));
    get(move || async move {
        let mut left = left.lock().expect("unpoisoned");
        let next = match left.len() {
            1 => left.front().cloned(),
            _ => left.pop_front(),
        };
        match next.expect("an answer") {
            Ok(view) => Json(view).into_response(),
            Err(failure) => refusal(&failure),
        }
    })
}

/// Always the same refusal.
pub(crate) fn refuse(failure: Failure) -> MethodRouter {
    any(move || async move { refusal(&failure) })
}

pub(crate) fn refusal(failure: &Failure) -> Response {
    let status = StatusCode::from_u16(failure.code.kind().http_status()).expect("a status");
    (status, Json(failure.clone())).into_response()
}

/// The operation is accepted.
pub(crate) fn accept(operation: i64, guest: Option<&str>) -> MethodRouter {
    let accepted = Accepted {
        operation: OperationId(operation),
        guest: guest.map(|name| GuestName::parse(name).expect("a name")),
    };
    any(move || async move { (StatusCode::ACCEPTED, Json(accepted)) })
}

/// What is asked of a preview is accepted.
pub(crate) fn accept_preview(slug: &str) -> MethodRouter {
    let accepted = PreviewAccepted {
        slug: GuestName::parse(slug).expect("a slug"),
        operation: None,
    };
    any(move || async move { (StatusCode::ACCEPTED, Json(accepted)) })
}

/// One connection's worth of events, and what happens then.
pub(crate) enum Part {
    /// The stream ends as it should.
    Ends(Vec<Event>),
    /// The connection breaks.
    Breaks(Vec<Event>),
    /// Nothing more comes, and the connection stays.
    Stays(Vec<Event>),
}

/// Each connection gets the next part; there must be no more connections than parts.
pub(crate) fn events(parts: impl IntoIterator<Item = Part>) -> MethodRouter {
    let parts: Arc<Mutex<VecDeque<Part>>> = Arc::new(Mutex::new(parts.into_iter().collect()));
    get(move || async move {
        let part = parts.lock().expect("unpoisoned").pop_front();
        let Some(part) = part else {
            return (StatusCode::IM_A_TEAPOT, "nobody should have come again").into_response();
        };
        let body = match part {
            Part::Ends(events) => Body::from(sse(&events)),
            Part::Breaks(events) => Body::from_stream(
                stream::iter([Ok(Bytes::from(sse(&events)))]).chain(stream::once(power_cut())),
            ),
            Part::Stays(events) => Body::from_stream(
                stream::iter([Ok::<_, io::Error>(Bytes::from(sse(&events)))])
                    .chain(stream::pending()),
            ),
        };
        ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
    })
}

/// A journal: who follows gets the first events and no end, who asks afterwards also the late ones.
pub(crate) fn journal(
    first: impl IntoIterator<Item = Event>,
    late: impl IntoIterator<Item = Event>,
) -> MethodRouter {
    #[derive(serde::Deserialize)]
    struct Asked {
        after: i64,
        follow: bool,
    }
    let (first, late) = (Vec::from_iter(first), Vec::from_iter(late));
    get(move |Query(asked): Query<Asked>| async move {
        let mut all = first;
        if !asked.follow {
            all.extend(late);
        }
        all.retain(|event| event.seq > asked.after || (asked.follow && event.seq == 0));
        let body = stream::iter([Ok::<_, io::Error>(Bytes::from(sse(&all)))]);
        let body = match asked.follow {
            true => Body::from_stream(body.chain(stream::pending())),
            false => Body::from_stream(body),
        };
        ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
    })
}

/// Breaks the connection once what came before is on its way.
async fn power_cut() -> io::Result<Bytes> {
    tokio::task::yield_now().await;
    Err(io::Error::other("power cut"))
}

fn sse(events: &[Event]) -> String {
    let message = |event: &Event| {
        let json = serde_json::to_string(event).expect("JSON");
        format!("id: {}\ndata: {json}\n\n", event.seq)
    };
    format!(
        ": hello\n\n{}",
        events.iter().map(message).collect::<String>()
    )
}

/// A terminal: the end that people look at, and the end that programs read.
pub(crate) fn terminal() -> (File, File) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    unlockpt(&ours).expect("unlocked");
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let theirs = ioctl_tiocgptpeer(&ours, flags).expect("the other end");
    (File::from(ours), File::from(theirs))
}

/// Gives a command a terminal for all it reads and prints.
pub(crate) fn attach(command: &mut Command, terminal: &File) {
    let end = || Stdio::from(OwnedFd::from(terminal.try_clone().expect("a descriptor")));
    command.stdin(end()).stdout(end()).stderr(end());
}

/// Everything that people see on their end of a terminal until a text ends it.
pub(crate) fn read_until(terminal: &mut File, text: &str) -> String {
    let mut seen = Vec::new();
    while !seen.ends_with(text.as_bytes()) {
        let mut byte = [0];
        terminal.read_exact(&mut byte).expect("more");
        seen.push(byte[0]);
    }
    String::from_utf8(seen).expect("UTF-8")
}
