//! HTTP/1.1 client for the daemon's Unix socket.

use std::path::PathBuf;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use innkeeper_model::{Code, Failure, GuestName, SnapshotLabel};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::failure::{CommandError, connection_lost, unexpected_response, unreachable};

/// Maximum size of a buffered response, in bytes.
const MAX_RESPONSE: usize = 64 << 20;

/// The upgraded connection of an `exec`.
pub(crate) type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

/// Client of the daemon's API. Opens a connection for each request: on a Unix socket that costs less than a pool.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    socket: PathBuf,
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
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket }
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
        let response = self.send(request(Method::GET, path, Bytes::new())?).await?;
        Ok(response.into_body())
    }

    /// Switches a connection to another protocol (RFC 9110, section 7.8).
    pub(crate) async fn upgrade(
        &self,
        path: &str,
        protocol: &'static str,
        body: &impl Serialize,
    ) -> Result<Upgraded, CommandError> {
        let mut request = request(Method::POST, path, json(body)?)?;
        let headers = request.headers_mut();
        headers.insert(
            header::CONNECTION,
            header::HeaderValue::from_static("Upgrade"),
        );
        headers.insert(header::UPGRADE, header::HeaderValue::from_static(protocol));
        let response = self.send(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = response.status();
            return Err(unexpected_response(&format!("{status} instead of an upgrade")).into());
        }
        let upgraded = hyper::upgrade::on(response)
            .await
            .map_err(|error| connection_lost(&self.socket, &error))?;
        Ok(TokioIo::new(upgraded))
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, CommandError> {
        let response = self.send(request(method, path, body)?).await?;
        let bytes = self.read_all(response.into_body()).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| unexpected_response(&format!("{path}: {error}")).into())
    }

    /// Sends a request and returns the response. A failure in the response is an error.
    async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, CommandError> {
        let mut connection = innkeeper_http::connect_unix(&self.socket)
            .await
            .map_err(|error| unreachable(&self.socket, &error))?;
        let response = connection.send_request(request).await;
        let response = response.map_err(|error| connection_lost(&self.socket, &error))?;
        let status = response.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let body = self.read_all(response.into_body()).await?;
        Err(failure_of(status, &body).into())
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
                Some(Err(error)) => return Err(connection_lost(&self.socket, &error)),
            }
        }
    }

    async fn read_all(&self, body: Incoming) -> Result<Bytes, Failure> {
        let body = innkeeper_http::read(body, MAX_RESPONSE).await;
        body.map_err(|error| connection_lost(&self.socket, &error))
    }
}

fn json(body: &impl Serialize) -> Result<Bytes, Failure> {
    serde_json::to_vec(body)
        .map(Bytes::from)
        .map_err(|error| Failure::new(Code::Internal, format!("cannot write the request: {error}")))
}

fn request(method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, Failure> {
    // HTTP/1.1 requires a Host header; a Unix socket has no host name.
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "innkeeper");
    if !body.is_empty() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    request.body(Full::new(body)).map_err(|error| {
        Failure::new(
            Code::Internal,
            format!("cannot build a request for '{path}': {error}"),
        )
    })
}

/// Returns the failure in a response. For an unknown code of a newer daemon, the code follows from the HTTP status, and
/// message, remedy and log are kept.
fn failure_of(status: StatusCode, body: &[u8]) -> Failure {
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
        return failure;
    }
    match serde_json::from_slice(body) {
        Ok(UnknownFailure {
            message,
            remedy,
            log,
            mem_available_percent,
        }) => Failure {
            code: code_for(status),
            message,
            remedy,
            log,
            mem_available_percent,
        },
        Err(_) => unexpected_response(&format!("{status} without a failure")),
    }
}

/// Returns the code that an HTTP status implies.
fn code_for(status: StatusCode) -> Code {
    match status {
        StatusCode::BAD_REQUEST => Code::InvalidRequest,
        StatusCode::SERVICE_UNAVAILABLE => Code::ShuttingDown,
        _ => Code::Internal,
    }
}
