//! HTTP/1.1 client for the daemon, on its Unix socket or behind a gateway.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use innkeeper_model::{Code, Failure, GuestName, Secret, SnapshotLabel};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::failure::{CommandError, connection_lost, unexpected_response};
use crate::gateway_failure;
use crate::target::{Gateway, Selection, Target};
use crate::transport;

/// Maximum size of a buffered response, in bytes.
const MAX_RESPONSE: usize = 64 << 20;

/// Maximum size of a response that is not a success, in bytes.
const MAX_FAILURE: usize = 1 << 20;

/// The program and its version, for the gateway.
pub(crate) const USER_AGENT: &str = concat!("innkeeper-cli/", env!("CARGO_PKG_VERSION"));

/// Limit for a gateway's response to begin. The daemon itself responds late where it waits for a guest.
const RESPONSE_LIMIT: Duration = Duration::from_secs(300);

/// The upgraded connection of an `exec`.
pub(crate) type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

/// Client of the daemon's API. Opens a connection for each request: on a Unix socket that costs less than a pool, and TLS
/// sessions are resumed.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// The selected daemon, and why.
    selection: Result<Selection, Failure>,
    /// The failure is that of every request.
    target: Result<Target, Failure>,
}

/// Returns the API path of a guest, with `rest` appended.
pub(crate) fn guest_path(name: &GuestName, rest: &str) -> String {
    format!("/v1/guests/{name}{rest}")
}

/// Returns the API path of a guest's snapshot, with `rest` appended.
pub(crate) fn snapshot_path(name: &GuestName, label: &SnapshotLabel, rest: &str) -> String {
    guest_path(name, &format!("/snapshots/{label}{rest}"))
}

/// Returns the API path of a preview, with `rest` appended.
pub(crate) fn preview_path(slug: &GuestName, rest: &str) -> String {
    format!("/v1/previews/{slug}{rest}")
}

impl Client {
    /// Creates a client of the selected daemon. A failure of the selection is that of every request.
    pub(crate) fn of(selection: Result<Selection, Failure>) -> Self {
        Self {
            target: selection.clone().and_then(Selection::open),
            selection,
        }
    }

    /// Returns a client of another gateway.
    pub(crate) fn with_gateway(&self, gateway: Gateway) -> Self {
        Self {
            selection: self.selection.clone(),
            target: Ok(Target::Gateway(Arc::new(gateway))),
        }
    }

    /// Creates a client of the daemon on a socket.
    #[cfg(test)]
    pub(crate) fn new(socket: std::path::PathBuf) -> Self {
        use crate::target::{Place, Reason};
        Self::of(Ok(Selection {
            place: Place::Socket(socket),
            reason: Reason::Default,
        }))
    }

    /// Returns the selected daemon, and why.
    pub(crate) fn selection(&self) -> Result<&Selection, Failure> {
        self.selection.as_ref().map_err(Clone::clone)
    }

    /// Returns the gateway, if the daemon is behind one.
    pub(crate) fn gateway(&self) -> Option<&Gateway> {
        match &self.target {
            Ok(Target::Gateway(gateway)) => Some(gateway),
            _ => None,
        }
    }

    /// Fails behind a gateway: a command that reads or changes the host itself runs there only.
    pub(crate) fn require_host(&self, command: &str) -> Result<(), Failure> {
        match self.gateway() {
            None => Ok(()),
            Some(gateway) => Err(Failure::new(
                Code::InvalidRequest,
                format!("`{command}` works on the host only, not through {}", gateway.url),
            )
            .with_remedy("Log in to the host and run it there, without INNKEEPER_URL and with `--context local` if a context is in use.")),
        }
    }

    /// Returns a remedy for a daemon that does not respond, as a sentence.
    pub(crate) fn check_remedy(&self) -> String {
        match self.gateway() {
            None => "Check `systemctl status innkeeper`.".to_owned(),
            Some(gateway) => format!("Check the connection to {}.", gateway.url),
        }
    }

    /// Returns the time of the daemon's clock at a time of this machine's clock, rounded down to be no later.
    pub(crate) fn daemon_time(&self, time: Timestamp) -> Timestamp {
        self.gateway()
            .map_or(time, |gateway| gateway.clock.daemon_time(time))
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CommandError> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, CommandError> {
        self.call(Method::DELETE, path, Bytes::new()).await
    }

    pub(crate) async fn post_empty<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<T, CommandError> {
        self.call(Method::POST, path, Bytes::new()).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CommandError> {
        self.call(Method::POST, path, json(body)?).await
    }

    /// Sends a `GET` request and returns the body as a stream.
    pub(crate) async fn stream(&self, path: &str) -> Result<Incoming, CommandError> {
        let response = Box::pin(self.send(Method::GET, path, Bytes::new(), None)).await?;
        Ok(response.into_body())
    }

    /// Switches a connection to another protocol (RFC 9110, section 7.8).
    pub(crate) async fn upgrade(
        &self,
        path: &str,
        protocol: &'static str,
        body: &impl Serialize,
    ) -> Result<Upgraded, CommandError> {
        let sent = self.send(Method::POST, path, json(body)?, Some(protocol));
        let response = Box::pin(sent).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = response.status();
            return Err(unexpected_response(&format!("{status} instead of an upgrade")).into());
        }
        let upgraded = hyper::upgrade::on(response)
            .await
            .map_err(|error| self.lost(&error))?;
        Ok(TokioIo::new(upgraded))
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, CommandError> {
        let response = Box::pin(self.send(method, path, body, None)).await?;
        let bytes = self.read_all(response.into_body(), MAX_RESPONSE).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| unexpected_response(&format!("{path}: {error}")).into())
    }

    /// Sends a request and returns the response. A failure in the response is an error.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        upgrade: Option<&'static str>,
    ) -> Result<Response<Incoming>, CommandError> {
        let target = self.target.as_ref().map_err(Clone::clone)?;
        let request = request(target, method, path, body, upgrade)?;
        let mut connection = transport::connect(target).await?;
        let sent = connection.send_request(request);
        let response = match target {
            Target::Socket(_) => sent.await,
            Target::Gateway(gateway) => timeout(RESPONSE_LIMIT, sent)
                .await
                .map_err(|_| gateway_failure::no_response(&gateway.url, RESPONSE_LIMIT))?,
        };
        let response = response.map_err(|error| self.lost(&error))?;
        if let Target::Gateway(gateway) = target {
            return Ok(self.check(gateway, response).await?);
        }
        let status = response.status();
        if is_success(status) {
            return Ok(response);
        }
        let body = self.read_all(response.into_body(), MAX_FAILURE).await?;
        let failure = failure_in(status, &body);
        Err(failure.unwrap_or_else(|| no_failure(status)).into())
    }

    /// Returns a gateway's response if it is a success. A proxy, a login page or a stranger may have sent any other.
    async fn check(
        &self,
        gateway: &Gateway,
        response: Response<Incoming>,
    ) -> Result<Response<Incoming>, Failure> {
        let url = &gateway.url;
        let status = response.status();
        gateway.clock.note(response.headers());
        let is_page = is_page(response.headers());
        if is_success(status) && !is_page {
            return Ok(response);
        }
        if status == StatusCode::UNAUTHORIZED {
            return Err(gateway_failure::unauthorized(gateway));
        }
        let body = self.read_all(response.into_body(), MAX_FAILURE).await?;
        if let Some(failure) = failure_in(status, &body).filter(|_| !is_page) {
            return Err(failure);
        }
        let not_a_gateway = |problem| gateway_failure::not_a_gateway(url, status, problem);
        Err(match status {
            StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => gateway_failure::unavailable(url, status),
            StatusCode::TOO_MANY_REQUESTS => gateway_failure::too_many(url),
            status if status.is_redirection() => not_a_gateway("it redirects to another URL"),
            _ if is_page => not_a_gateway("it responds with a web page"),
            _ => not_a_gateway("its response has no result"),
        })
    }

    /// Returns the next bytes of a streamed response, or `None` at its end.
    pub(crate) async fn next_chunk(&self, body: &mut Incoming) -> Result<Option<Bytes>, Failure> {
        loop {
            match body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    // Trailers are ignored.
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => return Err(self.lost(&error)),
            }
        }
    }

    async fn read_all(&self, body: Incoming, limit: usize) -> Result<Bytes, Failure> {
        let read = innkeeper_http::read(body, limit);
        let body = match self.gateway() {
            None => read.await,
            Some(gateway) => timeout(RESPONSE_LIMIT, read)
                .await
                .map_err(|_| gateway_failure::no_response(&gateway.url, RESPONSE_LIMIT))?,
        };
        body.map_err(|error| self.lost(&error))
    }

    /// Creates the failure for a connection that broke before the end of the response.
    pub(crate) fn lost(&self, error: &dyn Error) -> Failure {
        match &self.target {
            Ok(Target::Socket(path)) => connection_lost(path, error),
            Ok(Target::Gateway(gateway)) => gateway_failure::lost(&gateway.url, error),
            Err(failure) => failure.clone(),
        }
    }
}

fn is_success(status: StatusCode) -> bool {
    status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS
}

/// Reports whether a response is a web page, which the API never sends.
pub(crate) fn is_page(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| {
        kind.as_bytes()
            .to_ascii_lowercase()
            .starts_with(b"text/html")
    })
}

fn json(body: &impl Serialize) -> Result<Bytes, Failure> {
    serde_json::to_vec(body)
        .map(Bytes::from)
        .map_err(|error| Failure::new(Code::Internal, format!("cannot write the request: {error}")))
}

fn request(
    target: &Target,
    method: Method,
    path: &str,
    body: Bytes,
    upgrade: Option<&'static str>,
) -> Result<Request<Full<Bytes>>, Failure> {
    let invalid = |error: &dyn Error| {
        Failure::new(
            Code::Internal,
            format!("cannot build a request for '{path}': {error}"),
        )
    };
    let mut request = Request::builder().method(method);
    request = match target {
        // HTTP/1.1 requires a Host header; a Unix socket has no host name.
        Target::Socket(_) => request.uri(path).header(header::HOST, "innkeeper"),
        Target::Gateway(gateway) => {
            let request = request
                .uri(format!("{}{path}", gateway.url.prefix))
                .header(header::HOST, &gateway.url.authority)
                .header(header::USER_AGENT, USER_AGENT);
            match &gateway.token {
                None => request,
                Some(token) => {
                    let bearer = Secret::new(format!("Bearer {}", token.secret.expose()));
                    let mut bearer =
                        HeaderValue::from_str(bearer.expose()).map_err(|error| invalid(&error))?;
                    bearer.set_sensitive(true);
                    request.header(header::AUTHORIZATION, bearer)
                }
            }
        }
    };
    if !body.is_empty() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    if let Some(protocol) = upgrade {
        request = request
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, protocol);
    }
    (request.body(Full::new(body))).map_err(|error| invalid(&error))
}

/// Returns the failure in a response, if there is one. For an unknown code of a newer daemon, the code follows from the HTTP
/// status, and message, remedy and log are kept.
pub(crate) fn failure_in(status: StatusCode, body: &[u8]) -> Option<Failure> {
    #[derive(Deserialize)]
    struct UnknownFailure {
        message: String,
        remedy: Option<String>,
        #[serde(default)]
        log: Vec<String>,
        #[serde(default)]
        mem_available_percent: Option<u64>,
    }
    if let Ok(failure) = serde_json::from_slice(body) {
        return Some(failure);
    }
    let unknown: UnknownFailure = serde_json::from_slice(body).ok()?;
    Some(Failure {
        code: code_for(status),
        message: unknown.message,
        remedy: unknown.remedy,
        log: unknown.log,
        mem_available_percent: unknown.mem_available_percent,
    })
}

fn no_failure(status: StatusCode) -> Failure {
    unexpected_response(&format!("{status} without a failure"))
}

/// Returns the code that an HTTP status implies.
fn code_for(status: StatusCode) -> Code {
    match status {
        StatusCode::BAD_REQUEST => Code::InvalidRequest,
        StatusCode::FORBIDDEN => Code::Forbidden,
        StatusCode::SERVICE_UNAVAILABLE => Code::ShuttingDown,
        _ => Code::Internal,
    }
}
