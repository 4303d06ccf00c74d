//! The few HTTP calls that we make to Caddy: its admin API, and its own answers on the lookup address.

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
        let connection = connect_tcp(lookup).await?;
        let request = Request::get("/").header(HOST, lookup.to_string());
        exchange(connection, request, String::new()).await
    };
    let answer = tokio::time::timeout(PATIENCE, ask).await.ok()?.ok()?;
    let version = answer.headers().get(CONFIG_HEADER)?.to_str().ok()?;
    Some(version.to_owned())
}

async fn post(admin: &Admin, path: &str, what: &str, text: String) -> Result<(), RouteError> {
    let request = Request::post(path).header(CONTENT_TYPE, "text/caddyfile");
    let ask = async {
        match admin {
            // On a Unix socket Caddy accepts an empty host, in all versions.
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

/// Sends one request on a connection of its own.
async fn exchange(
    mut connection: Connection,
    request: hyper::http::request::Builder,
    body: String,
) -> io::Result<Response<Bytes>> {
    let request = request.body(body.into()).map_err(io::Error::other)?;
    innkeeper_http::exchange(&mut connection, request, MAX_ANSWER).await
}
