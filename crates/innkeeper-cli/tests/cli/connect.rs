use std::io::Write as _;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use hyper_util::rt::TokioIo;
use innkeeper_model::api::connect::{DATA, PROBE, PROTOCOL};
use innkeeper_model::{Code, Failure};

use crate::exec::{Connection, receive, send};
use crate::fake::{Fake, Run, fail, failure_response, respond};
use crate::samples::guest;

/// The number of connections that a daemon has had, by port.
pub(crate) type Ports = Arc<Mutex<Vec<u16>>>;

/// Creates a daemon in whose guest `web` each port runs `serve`, except port 9.
pub(crate) fn daemon<F, R>(serve: F) -> (Fake, Ports)
where
    F: Fn(Connection) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Option<()>> + Send,
{
    let ports = Ports::default();
    let record = Arc::clone(&ports);
    let connect = async move |Path(port): Path<u16>, request: Request| -> Response {
        let upgrade = request.headers().get(header::UPGRADE);
        assert_eq!(
            upgrade.map(axum::http::HeaderValue::as_bytes),
            Some(PROTOCOL.as_bytes())
        );
        if port == 9 {
            let message = "guest 'web' accepts no connection on port 9";
            return failure_response(
                &Failure::new(Code::PortClosed, message).with_remedy("Start it."),
            );
        }
        record.lock().expect("locked").push(port);
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(request).await.expect("an upgrade");
            serve(TokioIo::new(upgraded)).await
        });
        let headers = [(header::CONNECTION, "Upgrade"), (header::UPGRADE, PROTOCOL)];
        (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response()
    };
    let router = Router::new()
        .route("/v1/guests/web", respond(&guest("web", 1)))
        .route("/v1/guests/web/connect/{port}", post(connect));
    (Fake::new(router), ports)
}

/// Responds only when the client's data has ended: with its length, after a probe. Then ends its own data.
pub(crate) async fn count(mut connection: Connection) -> Option<()> {
    let mut length = 0;
    loop {
        match receive(&mut connection).await? {
            (DATA, body) if body.is_empty() => break,
            (DATA, body) => length += body.len(),
            (kind, _) => panic!("a frame of kind {kind}"),
        }
    }
    send(&mut connection, PROBE, b"").await?;
    send(
        &mut connection,
        DATA,
        format!("{length} bytes\n").as_bytes(),
    )
    .await?;
    send(&mut connection, DATA, b"").await
}

fn with_input(fake: &Fake, arguments: &[&str], input: Vec<u8>) -> Run {
    let mut child = fake.spawn("agent", arguments);
    let mut stdin = child.stdin.take().expect("its input");
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("all was read");
    Run::of(output)
}

#[test]
fn response_arrives_after_the_end_of_input() {
    let (fake, ports) = daemon(count);
    let run = with_input(&fake, &["connect", "web", "22"], vec![b'x'; 1_000_000]);
    assert_eq!(run.ok(), "1000000 bytes\n");
    assert_eq!(*ports.lock().expect("locked"), [22]);
}

#[test]
fn broken_connection_is_an_error() {
    let (fake, _) =
        daemon(async |mut connection: Connection| send(&mut connection, DATA, b"half").await);
    let mut child = fake.spawn("agent", &["connect", "web", "22", "--json"]);
    // Its input stays open.
    let _stdin = child.stdin.take();
    let run = Run::of(child.wait_with_output().expect("it ends"));
    assert_eq!((run.status, run.stdout.as_str()), (8, "half"));
    assert_eq!(run.failure().code, Code::DaemonUnreachable);
}

#[test]
fn invalid_frame_is_an_error() {
    let (unknown, _) =
        daemon(async |mut connection: Connection| send(&mut connection, 7, b"x").await);
    let (oversized, _) =
        daemon(async |mut connection: Connection| send(&mut connection, DATA, &[0; 70_000]).await);
    for fake in [unknown, oversized] {
        let run = fake.agent(&["connect", "web", "22"]);
        assert_eq!((run.status, run.stdout.as_str()), (8, ""), "{run:?}");
    }
}

#[test]
fn closed_port_is_reported_with_the_daemons_remedy() {
    let (fake, _) = daemon(count);
    let run = fake.agent(&["connect", "web", "9", "--wait", "3", "--json"]);
    assert_eq!((run.status, run.failure().code), (4, Code::PortClosed));
    assert!(
        fake.requests()
            .iter()
            .any(|line| line.ends_with("/connect/9?wait=3 null")),
        "{:?}",
        fake.requests()
    );
    assert_eq!(fake.agent(&["connect", "web", "0"]).status, 2);
    assert_eq!(
        fake.agent(&["connect", "web", "22", "--wait", "61"]).status,
        2
    );
}

#[test]
fn unknown_agent_is_suggested() {
    let none = Failure::new(Code::GuestNotFound, "no guest is named 'wbe'");
    let router = Router::new()
        .route("/v1/guests", respond(&[guest("web", 1)]))
        .route("/v1/guests/wbe/connect/22", fail(none));
    let run = Fake::new(router).agent(&["connect", "wbe", "22"]);
    assert!(run.stderr.contains("Did you mean 'web'?"), "{run:?}");
}
