//! A fake daemon, and functions that run the programs against it.

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

/// Creates the directory for a socket. It can outlive a daemon that is restarted.
pub(crate) fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// A daemon that responds as its router defines. Drop closes all connections.
pub(crate) struct Fake {
    socket: PathBuf,
    requests: watch::Receiver<Vec<String>>,
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

    /// Creates a daemon that listens on a path.
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
        let (record, requests) = watch::channel(Vec::new());
        let router = router.layer(middleware::from_fn_with_state(
            Arc::new(record),
            record_request,
        ));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            socket: socket.to_owned(),
            requests,
            runtime: Some(runtime),
            _directory: None,
        }
    }

    /// Returns the path of its socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Returns the requests so far: method, path with query, body.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.borrow().clone()
    }

    /// Waits for a request with this beginning.
    pub(crate) fn wait_for(&self, request: &str) {
        let mut requests = self.requests.clone();
        let wait =
            requests.wait_for(|requests| requests.iter().any(|line| line.starts_with(request)));
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

    /// Creates a command for a program that uses this daemon.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = command(program, arguments);
        command.env("INNKEEPER_SOCKET", &self.socket);
        command
    }

    /// Starts a program with pipes for its standard streams.
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

/// Exit status and output of a program.
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

    /// Returns status and output as one text, with durations replaced.
    pub(crate) fn transcript(&self) -> String {
        let text = format!(
            "status: {}\n--- stdout\n{}--- stderr\n{}",
            self.status, self.stdout, self.stderr
        );
        without_times(&text)
    }

    /// Returns standard output. Panics unless the program succeeded.
    pub(crate) fn ok(self) -> String {
        assert_eq!(
            (self.status, self.stderr.as_str()),
            (0, ""),
            "{}",
            self.stdout
        );
        self.stdout
    }

    /// Returns the JSON failure on standard error.
    pub(crate) fn failure(&self) -> Failure {
        serde_json::from_str(&self.stderr).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Replaces durations such as `61 ms` and `"elapsed_ms":61`, which vary.
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

/// Creates a command for a program with a fixed environment.
#[expect(
    clippy::disallowed_methods,
    reason = "the only place where the tests start the programs"
)]
pub(crate) fn command(program: &str, arguments: &[&str]) -> Command {
    let path = match program {
        "agent" => env!("CARGO_BIN_EXE_agent"),
        "preview" => env!("CARGO_BIN_EXE_preview"),
        "innkeeper" => env!("CARGO_BIN_EXE_innkeeper"),
        other => panic!("unknown program {other}"),
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

/// Runs a command to its end, without input.
pub(crate) fn run(mut command: Command) -> Run {
    Run::of(command.stdin(Stdio::null()).output().expect("it runs"))
}

async fn record_request(
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
    record.send_modify(|requests| requests.push(line.trim_end().to_owned()));
    next.run(Request::from_parts(parts, Body::from(body))).await
}

/// Always responds with the same value.
pub(crate) fn respond(value: &impl Serialize) -> MethodRouter {
    let value = serde_json::to_value(value).expect("JSON");
    any(move || async move { Json(value) })
}

/// Responds with one value after the other, then always with the last.
pub(crate) fn respond_in_turn(
    responses: impl IntoIterator<Item = Result<PreviewView, Failure>>,
) -> MethodRouter {
    let remaining: Arc<Mutex<VecDeque<_>>> = Arc::new(Mutex::new(responses.into_iter().collect()));
    get(move || async move {
        let mut remaining = remaining.lock().expect("unpoisoned");
        let next = match remaining.len() {
            1 => remaining.front().cloned(),
            _ => remaining.pop_front(),
        };
        match next.expect("a response") {
            Ok(view) => Json(view).into_response(),
            Err(failure) => failure_response(&failure),
        }
    })
}

/// Always responds with the same failure.
pub(crate) fn fail(failure: Failure) -> MethodRouter {
    any(move || async move { failure_response(&failure) })
}

pub(crate) fn failure_response(failure: &Failure) -> Response {
    let status = StatusCode::from_u16(failure.code.http_status()).expect("a status");
    (status, Json(failure.clone())).into_response()
}

/// Responds with an accepted operation.
pub(crate) fn accept(operation: i64, guest: Option<&str>) -> MethodRouter {
    let accepted = Accepted {
        operation: OperationId(operation),
        guest: guest.map(|name| GuestName::parse(name).expect("a name")),
    };
    any(move || async move { (StatusCode::ACCEPTED, Json(accepted)) })
}

/// Responds with an accepted change of a preview.
pub(crate) fn accept_preview(slug: &str) -> MethodRouter {
    let accepted = PreviewAccepted {
        slug: GuestName::parse(slug).expect("a slug"),
        operation: None,
    };
    any(move || async move { (StatusCode::ACCEPTED, Json(accepted)) })
}

/// The events of one connection, and its end.
pub(crate) enum Stream {
    /// The stream ends normally.
    Ends(Vec<Event>),
    /// The connection breaks.
    Breaks(Vec<Event>),
    /// The connection stays open without further events.
    Stays(Vec<Event>),
}

/// Gives each connection the next stream. A connection without one fails.
pub(crate) fn events(parts: impl IntoIterator<Item = Stream>) -> MethodRouter {
    let parts: Arc<Mutex<VecDeque<Stream>>> = Arc::new(Mutex::new(parts.into_iter().collect()));
    get(move || async move {
        let part = parts.lock().expect("unpoisoned").pop_front();
        let Some(part) = part else {
            return (StatusCode::IM_A_TEAPOT, "unexpected connection").into_response();
        };
        let body = match part {
            Stream::Ends(events) => Body::from(sse(&events)),
            Stream::Breaks(events) => Body::from_stream(
                stream::iter([Ok(Bytes::from(sse(&events)))])
                    .chain(stream::once(broken_connection())),
            ),
            Stream::Stays(events) => Body::from_stream(
                stream::iter([Ok::<_, io::Error>(Bytes::from(sse(&events)))])
                    .chain(stream::pending()),
            ),
        };
        ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
    })
}

/// An event log. A following request receives the first events and no end; other requests also receive the late events.
pub(crate) fn journal(
    first: impl IntoIterator<Item = Event>,
    late: impl IntoIterator<Item = Event>,
) -> MethodRouter {
    #[derive(serde::Deserialize)]
    struct Parameters {
        after: i64,
        follow: bool,
    }
    let (first, late) = (Vec::from_iter(first), Vec::from_iter(late));
    get(move |Query(parameters): Query<Parameters>| async move {
        let mut all = first;
        if !parameters.follow {
            all.extend(late);
        }
        all.retain(|event| event.seq > parameters.after || (parameters.follow && event.seq == 0));
        let body = stream::iter([Ok::<_, io::Error>(Bytes::from(sse(&all)))]);
        let body = match parameters.follow {
            true => Body::from_stream(body.chain(stream::pending())),
            false => Body::from_stream(body),
        };
        ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
    })
}

/// Breaks the connection after the preceding chunk is sent.
async fn broken_connection() -> io::Result<Bytes> {
    tokio::task::yield_now().await;
    Err(io::Error::other("broken connection"))
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

/// Creates a terminal. Returns the user's end and the program's end.
pub(crate) fn terminal() -> (File, File) {
    let user_end = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    unlockpt(&user_end).expect("unlocked");
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let program_end = ioctl_tiocgptpeer(&user_end, flags).expect("the other end");
    (File::from(user_end), File::from(program_end))
}

/// Attaches a terminal to all standard streams of a command.
pub(crate) fn attach(command: &mut Command, terminal: &File) {
    let end = || Stdio::from(OwnedFd::from(terminal.try_clone().expect("a descriptor")));
    command.stdin(end()).stdout(end()).stderr(end());
}

/// Reads from the user's end of a terminal until a text appears, and returns all output.
pub(crate) fn read_until(terminal: &mut File, text: &str) -> String {
    let mut output = Vec::new();
    while !output.ends_with(text.as_bytes()) {
        let mut byte = [0];
        terminal.read_exact(&mut byte).expect("more");
        output.push(byte[0]);
    }
    String::from_utf8(output).expect("UTF-8")
}
