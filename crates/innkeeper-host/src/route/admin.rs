//! HTTP requests to Caddy: its admin API, and the lookup address.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, Response, StatusCode};
use innkeeper_http::{Connection, connect_tcp, connect_unix};
use serde::Deserialize;

use super::RouteError;
use super::config::Admin;
use super::render::CONFIG_HEADER;

/// Timeout of a request that loads nothing.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Timeout of a load. Caddy prepares all sites of its main file, which takes minutes on a slow machine with many of them. It
/// finishes a load whose client is gone, so a shorter timeout would add loads to those in flight.
const LOAD_TIMEOUT: Duration = Duration::from_mins(15);

/// Maximum size of a response, in bytes. An adapted configuration of a thousand sites has about 1 MiB.
const MAX_RESPONSE: usize = 64 << 20;

#[derive(Deserialize)]
struct ErrorResponse {
    error: String,
}

/// Checks a configuration in Caddyfile form without loading it. `subject` names it in errors.
pub(super) async fn adapt(admin: &Admin, subject: &str, text: String) -> Result<(), RouteError> {
    post(admin, "/adapt", subject, text, TIMEOUT).await
}

/// Replaces Caddy's configuration by one in Caddyfile form. On failure, the old one stays in force.
pub(super) async fn load(admin: &Admin, subject: &str, text: String) -> Result<(), RouteError> {
    post(admin, "/load", subject, text, LOAD_TIMEOUT).await
}

/// Returns the version of the shared configuration in force, or `None` if Caddy runs without it.
pub(super) async fn version_in_force(lookup: SocketAddr) -> Option<String> {
    let query = async {
        let connection = connect_tcp(lookup).await?;
        let request = Request::get("/").header(HOST, lookup.to_string());
        exchange(connection, request, String::new()).await
    };
    let response = tokio::time::timeout(TIMEOUT, query).await.ok()?.ok()?;
    let version = response.headers().get(CONFIG_HEADER)?.to_str().ok()?;
    Some(version.to_owned())
}

async fn post(
    admin: &Admin,
    path: &str,
    subject: &str,
    text: String,
    timeout: Duration,
) -> Result<(), RouteError> {
    let request = Request::post(path).header(CONTENT_TYPE, "text/caddyfile");
    let send = async {
        match admin {
            // All versions of Caddy accept an empty host on a Unix socket.
            Admin::Unix(socket) => {
                let connection = connect_unix(socket).await?;
                exchange(connection, request.header(HOST, ""), text).await
            }
            Admin::Tcp(address) => {
                let connection = connect_tcp(*address).await?;
                exchange(connection, request.header(HOST, address.to_string()), text).await
            }
        }
    };
    let response = tokio::time::timeout(timeout, send)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|source| RouteError::Unreachable {
            address: admin.to_string(),
            source,
        })?;
    if response.status() == StatusCode::OK {
        return Ok(());
    }
    let message = match serde_json::from_slice::<ErrorResponse>(response.body()) {
        Ok(response) => response.error,
        Err(_) => response.status().to_string(),
    };
    Err(RouteError::Refused {
        subject: subject.to_owned(),
        message,
    })
}

/// Sends one request on its own connection.
async fn exchange(
    mut connection: Connection,
    request: hyper::http::request::Builder,
    body: String,
) -> io::Result<Response<Bytes>> {
    let request = request.body(body.into()).map_err(io::Error::other)?;
    innkeeper_http::exchange(&mut connection, request, MAX_RESPONSE).await
}
