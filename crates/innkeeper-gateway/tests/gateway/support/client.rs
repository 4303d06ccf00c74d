//! Requests to the gateway as Caddy sends them.

use std::path::Path;

use axum::body::Body;
use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// The header with the client's address, which Caddy adds.
pub(crate) const FORWARDED_FOR: &str = "x-forwarded-for";

/// A response with its whole body.
pub(crate) struct Answer {
    pub(crate) head: Response<()>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.status().as_u16()
    }

    /// Returns a header's text, or an empty one.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.head.headers().get(name);
        value.map_or("", |value| value.to_str().expect("text"))
    }
}

pub(crate) async fn connect(socket: &Path) -> SendRequest<Body> {
    let stream = UnixStream::connect(socket).await.expect("connects");
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection.with_upgrades());
    sender
}

/// Builds a request from a client at 192.0.2.1.
pub(crate) fn request(
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Request<Body> {
    let mut request = Request::builder().uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "api.test");
    }
    if !headers.iter().any(|(name, _)| *name == FORWARDED_FOR) {
        request = request.header(FORWARDED_FOR, "192.0.2.1");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).expect("a request")
}

/// Sends a request on a connection of its own, and returns the response when its head has arrived.
pub(crate) async fn begin(
    socket: &Path,
    request: Request<Body>,
) -> hyper::Result<Response<Incoming>> {
    connect(socket).await.send_request(request).await
}

/// Sends a request on a connection of its own, and returns the whole response.
pub(crate) async fn send(socket: &Path, request: Request<Body>) -> Answer {
    let response = begin(socket, request).await.expect("responds");
    let (head, body) = response.into_parts();
    let body: Bytes = body.collect().await.expect("a body").to_bytes();
    Answer {
        head: Response::from_parts(head, ()),
        body: String::from_utf8(body.to_vec()).expect("text"),
    }
}

/// Sends a GET request with headers.
pub(crate) async fn get(socket: &Path, path: &str, headers: &[(&str, &str)]) -> Answer {
    send(socket, request(path, headers, Body::empty())).await
}

/// Returns the next piece of a body as text, or `None` at its end.
pub(crate) async fn piece(body: &mut Incoming) -> Option<hyper::Result<String>> {
    let frame = body.frame().await?;
    Some(frame.map(|frame| {
        let data = frame.into_data().expect("data");
        String::from_utf8(data.to_vec()).expect("text")
    }))
}
