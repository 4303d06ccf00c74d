//! Bodies and connections that stay open: nothing is buffered, and the end of one side is that of the other.

use axum::body::{Body, Bytes};
use axum::http::Method;
use futures_util::stream::poll_fn;
use hyper_util::rt::TokioIo;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use crate::support::client::{begin, connect, piece, request};
use crate::support::daemon::Daemon;
use crate::support::program::Program;
use crate::support::{bearer, directory, publish};

/// A directory with a token, a daemon and the program in it.
struct Setup {
    _directory: tempfile::TempDir,
    daemon: Daemon,
    program: Program,
    token: String,
}

impl Setup {
    fn new() -> Self {
        let directory = directory();
        publish(directory.path(), &[7]);
        let daemon = Daemon::start(directory.path());
        let program = Program::start(directory.path());
        Self {
            _directory: directory,
            daemon,
            program,
            token: bearer(7),
        }
    }

    fn request(&self, path: &str, body: impl Into<Body>) -> hyper::Request<Body> {
        request(path, &[("authorization", &self.token)], body)
    }

    /// Begins a command in a guest, and returns its connection.
    async fn exec(&self) -> TokioIo<hyper::upgrade::Upgraded> {
        let mut sent = self.request("/v1/exec", "{}");
        *sent.method_mut() = Method::POST;
        let headers = sent.headers_mut();
        headers.insert("connection", "Upgrade".parse().expect("a header"));
        headers.insert("upgrade", "innkeeper-exec".parse().expect("a header"));
        let response = begin(&self.program.socket, sent).await.expect("responds");
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["upgrade"], "innkeeper-exec");
        TokioIo::new(hyper::upgrade::on(response).await.expect("switches"))
    }
}

async fn echo(stream: &mut TokioIo<hyper::upgrade::Upgraded>, text: &str) {
    stream.write_all(text.as_bytes()).await.expect("sends");
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).await.expect("receives");
    assert_eq!(back, text.as_bytes());
}

#[tokio::test]
async fn pieces_of_a_response_arrive_at_once() {
    let setup = Setup::new();
    for path in ["/v1/events", "/v1/logs"] {
        let sent = setup.request(path, Body::empty());
        let response = begin(&setup.program.socket, sent).await.expect("responds");
        let mut body = response.into_body();
        let mut next = async || piece(&mut body).await.expect("open").expect("whole");
        assert_eq!(next().await, "first\n");
        setup.daemon.send("second\n");
        assert_eq!(next().await, "second\n");
    }
}

#[tokio::test]
async fn pieces_of_a_request_arrive_at_once() {
    let setup = Setup::new();
    let (sender, mut receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let body = Body::from_stream(poll_fn(move |cx| receiver.poll_recv(cx)));
    let mut sent = setup.request("/v1/files", body);
    *sent.method_mut() = Method::PUT;
    let socket = setup.program.socket.clone();
    let response = tokio::spawn(async move { crate::support::client::send(&socket, sent).await });
    for total in [5, 10] {
        sender
            .send(Ok(Bytes::from_static(b"12345")))
            .await
            .expect("open");
        // The second piece is sent only after the first one has arrived.
        setup.daemon.wait_for_bytes(total).await;
    }
    drop(sender);
    let answer = response.await.expect("ends");
    assert_eq!(
        (answer.status(), answer.body.as_str()),
        (200, "{\"length\":10}")
    );
}

#[tokio::test]
async fn connection_switches_protocols() {
    let setup = Setup::new();
    let mut stream = setup.exec().await;
    echo(&mut stream, "hello").await;
    echo(&mut stream, "again").await;
    stream.shutdown().await.expect("ends");
    assert_eq!(stream.read(&mut [0]).await.expect("the end"), 0);
    let received = setup.daemon.received();
    assert_eq!(received[0].header("innkeeper-actor"), "token:7");
    assert_eq!(received[0].header("upgrade"), "innkeeper-exec");
    assert_eq!(received[0].method, Method::POST);
}

#[tokio::test]
async fn client_never_takes_a_part_for_the_whole() {
    let setup = Setup::new();
    let sent = setup.request("/v1/logs", Body::empty());
    let response = begin(&setup.program.socket, sent).await.expect("responds");
    let mut body = response.into_body();
    assert_eq!(
        piece(&mut body).await.expect("open").expect("whole"),
        "first\n"
    );
    setup.daemon.break_streams();
    assert!(piece(&mut body).await.is_none_or(|piece| piece.is_err()));
    assert!(!hyper::body::Body::is_end_stream(&body));
}

#[tokio::test]
async fn client_that_leaves_ends_the_request() {
    let setup = Setup::new();
    let sent = setup.request("/v1/logs", Body::empty());
    let connection = connect(&setup.program.socket).await;
    let mut connection = connection;
    let response = connection.send_request(sent).await.expect("responds");
    drop((response, connection));
    let in_progress = "innkeeper_gateway_requests_in_progress 0";
    while !crate::limits::metrics(&setup.program)
        .await
        .contains(in_progress)
    {
        setup.daemon.send("more\n");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn stop_ends_streams_and_requests_in_order() {
    let setup = Setup::new();
    let mut command = setup.exec().await;
    echo(&mut command, "before").await;
    let events = begin(
        &setup.program.socket,
        setup.request("/v1/events", Body::empty()),
    )
    .await;
    let mut events = events.expect("responds").into_body();
    assert_eq!(
        piece(&mut events).await.expect("open").expect("whole"),
        "first\n"
    );
    let Setup {
        daemon, program, ..
    } = setup;
    program.signal(Signal::TERM);
    program.wait_for("STOPPING=1");
    // Events end, and are resumed by the client. A command goes on for the grace period.
    assert!(piece(&mut events).await.is_none());
    echo(&mut command, "during").await;
    command.shutdown().await.expect("ends");
    assert_eq!(command.read(&mut [0]).await.expect("the end"), 0);
    assert!(program.ended().await);
    drop(daemon);
}

#[tokio::test]
async fn tunnels_end_with_the_grace_period() {
    let setup = Setup::new();
    let mut command = setup.exec().await;
    echo(&mut command, "before").await;
    let Setup {
        daemon, program, ..
    } = setup;
    program.signal(Signal::TERM);
    assert!(program.ended().await);
    assert!(matches!(command.read(&mut [0]).await, Ok(0) | Err(_)));
    drop(daemon);
}

#[tokio::test]
async fn restart_of_the_daemon_ends_its_streams_only() {
    let directory = directory();
    publish(directory.path(), &[7]);
    let daemon = Daemon::start(directory.path());
    let program = Program::start(directory.path());
    let token = bearer(7);
    let sent = || request("/v1/events", &[("authorization", &token)], Body::empty());
    let mut first = begin(&program.socket, sent())
        .await
        .expect("responds")
        .into_body();
    assert_eq!(
        piece(&mut first).await.expect("open").expect("whole"),
        "first\n"
    );
    drop(daemon);
    while let Some(Ok(_)) = piece(&mut first).await {}
    let away = begin(&program.socket, sent()).await.expect("responds");
    assert_eq!(away.status(), 503);
    let _daemon = Daemon::start(directory.path());
    let mut second = begin(&program.socket, sent())
        .await
        .expect("responds")
        .into_body();
    assert_eq!(
        piece(&mut second).await.expect("open").expect("whole"),
        "first\n"
    );
}
