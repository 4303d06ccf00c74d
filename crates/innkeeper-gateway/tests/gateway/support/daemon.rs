//! A fake of innkeeperd on the gateway's socket. It records each request that reaches it.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, header};
use futures_util::stream;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use innkeeper_model::access::{GATEWAY_SOCKET, ReadyReport};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

/// A request that reached the daemon.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) method: Method,
    pub(crate) uri: String,
    pub(crate) headers: HeaderMap,
    /// The body of a call of a login; empty for others.
    pub(crate) body: String,
}

impl Received {
    /// Returns a header's text, or an empty one.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("text"))
    }
}

#[derive(Default)]
struct State {
    received: Mutex<Vec<Received>>,
    failing: Mutex<Vec<String>>,
    /// The paths that do not exist for any actor.
    missing: Mutex<Vec<String>>,
    /// Nobody can log in.
    without_logins: AtomicBool,
    /// The pieces of bodies that arrived, one by one.
    pieces: Mutex<Vec<usize>>,
    changed: Notify,
    /// Senders of the streams that are open.
    streams: Mutex<Vec<mpsc::UnboundedSender<Result<Bytes, std::io::Error>>>>,
}

/// A fake that serves until it is dropped.
pub(crate) struct Daemon {
    state: Arc<State>,
    socket: PathBuf,
    serving: JoinHandle<()>,
}

impl Daemon {
    pub(crate) fn start(directory: &Path) -> Self {
        Self::resume(directory, Arc::default())
    }

    fn resume(directory: &Path, state: Arc<State>) -> Self {
        let socket = directory.join(GATEWAY_SOCKET);
        drop(std::fs::remove_file(&socket));
        let listener = UnixListener::bind(&socket).expect("listens");
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        std::fs::set_permissions(&socket, everybody).expect("permissions");
        let serving = tokio::spawn(serve(listener, Arc::clone(&state)));
        Self {
            state,
            socket,
            serving,
        }
    }

    /// Returns all requests so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.state.received.lock().clone()
    }

    /// Sets the parts that do not work.
    pub(crate) fn fail(&self, parts: &[&str]) {
        *self.state.failing.lock() = parts.iter().map(ToString::to_string).collect();
    }

    /// Sets the paths that do not exist for any actor.
    pub(crate) fn hide(&self, paths: &[&str]) {
        *self.state.missing.lock() = paths.iter().map(ToString::to_string).collect();
    }

    /// Refuses logins, as a host without an OAuth app does.
    pub(crate) fn disable_logins(&self) {
        self.state.without_logins.store(true, Ordering::Relaxed);
    }

    /// Waits until this many bytes of bodies have arrived.
    pub(crate) async fn wait_for_bytes(&self, count: usize) {
        loop {
            let changed = self.state.changed.notified();
            if self.state.pieces.lock().iter().sum::<usize>() >= count {
                return;
            }
            changed.await;
        }
    }

    /// Sends a piece to all open streams.
    pub(crate) fn send(&self, piece: &str) {
        for stream in &*self.state.streams.lock() {
            drop(stream.send(Ok(Bytes::copy_from_slice(piece.as_bytes()))));
        }
    }

    /// Ends all open streams with an error, as a crash does.
    pub(crate) fn break_streams(&self) {
        for stream in self.state.streams.lock().drain(..) {
            drop(stream.send(Err(std::io::Error::other("crashed"))));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.serving.abort();
        drop(std::fs::remove_file(&self.socket));
    }
}

async fn serve(listener: UnixListener, state: Arc<State>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let service = service_fn(|request| respond(Arc::clone(&state), request));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            drop(connection.with_upgrades().await);
        });
    }
}

async fn respond(
    state: Arc<State>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    if path == "/v1/ready" {
        return Ok(ready(&state));
    }
    let mut received = Received {
        method: request.method().clone(),
        uri: request.uri().to_string(),
        headers: request.headers().clone(),
        body: String::new(),
    };
    if matches!(path.as_str(), "/v1/logins" | "/v1/sessions/device") {
        let body = request.body_mut().collect().await.expect("a body");
        received.body = String::from_utf8(body.to_bytes().to_vec()).expect("text");
    }
    state.received.lock().push(received);
    let mut response = Response::new(Body::empty());
    if state.missing.lock().contains(&path) {
        *response.status_mut() = StatusCode::NOT_FOUND;
        return Ok(response);
    }
    if path == "/v1/logins" && state.without_logins.load(Ordering::Relaxed) {
        *response.status_mut() = StatusCode::NOT_FOUND;
        *response.body_mut() =
            Body::from(r#"{"code":"login_disabled","message":"people cannot log in"}"#);
        return Ok(response);
    }
    match path.as_str() {
        "/v1/logins" | "/v1/sessions" | "/v1/sessions/device" | "/v1/session" => {
            *response.body_mut() = Body::from(login(&path, request.method()));
        }
        "/v1/events" | "/v1/logs" => {
            let kind = match path.as_str() {
                "/v1/events" => "text/event-stream",
                _ => "application/octet-stream",
            };
            let kind = kind.parse().expect("a header");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            let (sender, mut receiver) = mpsc::unbounded_channel();
            sender
                .send(Ok(Bytes::from_static(b"first\n")))
                .expect("open");
            state.streams.lock().push(sender);
            let pieces = stream::poll_fn(move |cx| receiver.poll_recv(cx));
            *response.body_mut() = Body::from_stream(pieces);
        }
        // The body is not read, and the connection ends with the response.
        "/v1/too-long" => {
            *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            let close = "close".parse().expect("a header");
            response.headers_mut().insert(header::CONNECTION, close);
            *response.body_mut() = Body::from("too long");
        }
        "/v1/endless" => {
            let piece = Bytes::from(vec![b'x'; 64 * 1024]);
            let pieces = stream::repeat_with(move || Ok::<_, Infallible>(piece.clone()));
            *response.body_mut() = Body::from_stream(pieces);
        }
        "/v1/exec" => {
            let upgrade = hyper::upgrade::on(&mut request);
            drop(request.into_body().collect().await);
            tokio::spawn(async move {
                let mut stream = TokioIo::new(upgrade.await.expect("switches"));
                let mut buffer = [0; 1024];
                while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                    drop(stream.write_all(&buffer[..length]).await);
                }
                drop(stream.shutdown().await);
            });
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            for (name, value) in [("connection", "upgrade"), ("upgrade", "innkeeper-exec")] {
                let value = value.parse().expect("a header");
                response.headers_mut().insert(name, value);
            }
        }
        _ => {
            let mut body = request.into_body();
            let mut length = 0;
            while let Some(Ok(frame)) = body.frame().await {
                let piece = frame.into_data().expect("data").len();
                length += piece;
                state.pieces.lock().push(piece);
                state.changed.notify_waiters();
            }
            *response.body_mut() = Body::from(format!("{{\"length\":{length}}}"));
        }
    }
    Ok(response)
}

/// Returns the response to a call of a login: the session is that of the token 9, and that of a machine the token 11.
fn login(path: &str, method: &Method) -> String {
    let mut session = json!({
        "person": { "id": 583_231, "login": "octocat" },
        "role": "developer",
        "kind": "browser",
        "name": "octocat.browser.ababab",
        "expires_at": Timestamp::now() + SignedDuration::from_hours(12),
    });
    match (path, method) {
        ("/v1/logins", _) => json!({ "url": "https://github.test/authorize?state=x" }),
        ("/v1/sessions", _) => {
            session["token"] = super::token(9).text().expose().into();
            session
        }
        ("/v1/sessions/device", _) => {
            session["token"] = super::token(11).text().expose().into();
            session["kind"] = "device".into();
            session["name"] = "octocat.laptop.ababab".into();
            session
        }
        (_, &Method::DELETE) => json!({
            "id": 9, "name": "octocat.browser.ababab", "role": "developer", "repo": null,
            "created_by": "github:583231", "created_at": Timestamp::now(), "expires_at": null,
            "last_used_at": null, "revoked_at": Timestamp::now(),
        }),
        _ => session,
    }
    .to_string()
}

fn ready(state: &State) -> Response<Body> {
    let failing = state.failing.lock().clone();
    let ready = failing.is_empty();
    let report = serde_json::to_vec(&ReadyReport { ready, failing }).expect("JSON");
    let mut response = Response::new(Body::from(report));
    if !ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}
