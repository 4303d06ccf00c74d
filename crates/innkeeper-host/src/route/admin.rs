//! The few HTTP calls that we make to Caddy: its admin API, and its own answers on the lookup address.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::{Body, Bytes};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::RouteError;
use super::config::Admin;
use super::render::CONFIG_HEADER;

/// How long Caddy may take for an answer. Loading a thousand sites takes it seconds on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The longest answer that is read, in bytes. An adapted configuration of a thousand sites has about one
/// MiB.
const MAX_ANSWER: usize = 64 << 20;

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// Asks Caddy whether it understands a configuration in Caddyfile form. Nothing comes into force.
pub(super) async fn adapt(admin: &Admin, what: &str, text: String) -> Result<(), RouteError> {
    post(admin, "/adapt", what, text).await
}

/// Gives Caddy a configuration in Caddyfile form in place of the one in force. When it does not work, the
/// former one stays in force.
pub(super) async fn load(admin: &Admin, what: &str, text: String) -> Result<(), RouteError> {
    post(admin, "/load", what, text).await
}

/// The version of our part of the configuration in force; nothing when Caddy runs without it.
pub(super) async fn version_in_force(lookup: SocketAddr) -> Option<String> {
    let ask = async {
        let stream = TcpStream::connect(lookup).await?;
        let request = Request::get("/").header(HOST, lookup.to_string());
        exchange(stream, request, Empty::<Bytes>::new()).await
    };
    let answer = tokio::time::timeout(PATIENCE, ask).await.ok()?.ok()?;
    let version = answer.headers().get(CONFIG_HEADER)?.to_str().ok()?;
    Some(version.to_owned())
}

async fn post(admin: &Admin, path: &str, what: &str, text: String) -> Result<(), RouteError> {
    let request = Request::post(path).header(CONTENT_TYPE, "text/caddyfile");
    let body = Full::new(Bytes::from(text));
    let ask = async {
        match admin {
            // On a Unix socket Caddy accepts an empty host, in all versions.
            Admin::Unix(socket) => {
                let stream = UnixStream::connect(socket).await?;
                exchange(stream, request.header(HOST, ""), body).await
            }
            Admin::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                exchange(stream, request.header(HOST, address.to_string()), body).await
            }
        }
    };
    let answer = tokio::time::timeout(PATIENCE, ask)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|source| RouteError::Unreachable {
            address: admin.to_string(),
            source,
        })?;
    if answer.status() == StatusCode::OK {
        return Ok(());
    }
    let said = match serde_json::from_slice::<Refusal>(answer.body()) {
        Ok(refusal) => refusal.error,
        Err(_) => answer.status().to_string(),
    };
    Err(RouteError::Refused {
        what: what.to_owned(),
        said,
    })
}

/// One request on a connection of its own.
async fn exchange<S, B>(
    stream: S,
    request: hyper::http::request::Builder,
    body: B,
) -> io::Result<Response<Bytes>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data = Bytes, Error = std::convert::Infallible> + Send + 'static,
{
    let request = request.body(body).map_err(io::Error::other)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let talk = async {
        let (head, body) = sender
            .send_request(request)
            .await
            .map_err(io::Error::other)?
            .into_parts();
        let body = Limited::new(body, MAX_ANSWER);
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(Response::from_parts(head, body))
    };
    // The connection works as long as it is polled, and ends with this call. A failure of it shows in what
    // was asked through it.
    let mut talk = std::pin::pin!(talk);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        biased;
        answer = &mut talk => answer,
        _ = &mut connection => talk.await,
    }
}
