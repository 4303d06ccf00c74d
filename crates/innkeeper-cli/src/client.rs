//! HTTP/1.1 on the daemon's Unix socket.

use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use innkeeper_model::{Code, Failure, GuestName, SnapshotLabel};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use crate::failure::{CommandError, cut_off, not_understood, unreachable};

/// The longest answer that is taken in one piece, in bytes.
const MAX_ANSWER: usize = 64 << 20;

/// The upgraded connection of an `exec`.
pub(crate) type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

/// Speaks to the daemon, with a connection of its own for each call: on a Unix socket that costs less than
/// looking after an idle one.
#[derive(Debug)]
pub(crate) struct Client {
    socket: PathBuf,
}

/// The path of a guest in the API, with what follows its name.
pub(crate) fn guest_path(name: &GuestName, rest: &str) -> String {
    format!("/v1/guests/{name}{rest}")
}

/// The path of a guest's snapshot in the API, with what follows its label.
pub(crate) fn snapshot_path(name: &GuestName, label: &SnapshotLabel, rest: &str) -> String {
    guest_path(name, &format!("/snapshots/{label}{rest}"))
}

/// The path of a preview in the API, with what follows its slug.
pub(crate) fn preview_path(slug: &GuestName, rest: &str) -> String {
    format!("/v1/previews/{slug}{rest}")
}

impl Client {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CommandError> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, CommandError> {
        self.call(Method::DELETE, path, Bytes::new()).await
    }

    pub(crate) async fn post_nothing<T: DeserializeOwned>(
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

    /// Asks for something that is read while it is written.
    pub(crate) async fn stream(&self, path: &str) -> Result<Incoming, CommandError> {
        let answer = self.send(request(Method::GET, path, Bytes::new())?).await?;
        Ok(answer.into_body())
    }

    /// Asks for another protocol on the same connection (RFC 9110, section 7.8).
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
        let answer = self.send(request).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = answer.status();
            return Err(not_understood(&format!("{status} instead of an upgrade")).into());
        }
        let upgraded = hyper::upgrade::on(answer)
            .await
            .map_err(|error| cut_off(&self.socket, &error))?;
        Ok(TokioIo::new(upgraded))
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, CommandError> {
        let answer = self.send(request(method, path, body)?).await?;
        let bytes = self.whole(answer.into_body()).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| not_understood(&format!("{path}: {error}")).into())
    }

    /// Sends a request and returns the answer's head; a failure that the daemon answers with is an error.
    async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, CommandError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| unreachable(&self.socket, &error))?;
        let cut_off = |error: hyper::Error| cut_off(&self.socket, &error);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(cut_off)?;
        // It ends with the answer's body; an error of it turns up there, too.
        tokio::spawn(connection.with_upgrades());
        let answer = sender.send_request(request).await.map_err(cut_off)?;
        let status = answer.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(answer);
        }
        let body = self.whole(answer.into_body()).await?;
        Err(refusal(status, &body).into())
    }

    async fn whole(&self, body: Incoming) -> Result<Bytes, Failure> {
        match Limited::new(body, MAX_ANSWER).collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) => Err(cut_off(&self.socket, error.as_ref())),
        }
    }
}

fn json(body: &impl Serialize) -> Result<Bytes, Failure> {
    serde_json::to_vec(body)
        .map(Bytes::from)
        .map_err(|error| Failure::new(Code::Internal, format!("cannot write the request: {error}")))
}

fn request(method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, Failure> {
    // HTTP/1.1 wants a host; on a Unix socket there is none to name.
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "innkeeper");
    if !body.is_empty() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    request
        .body(Full::new(body))
        .map_err(|error| Failure::new(Code::Internal, format!("cannot ask for '{path}': {error}")))
}

/// The failure in an answer. A newer daemon's code that this program does not know loses its name and keeps
/// its words.
fn refusal(status: StatusCode, body: &[u8]) -> Failure {
    #[derive(Deserialize)]
    struct Words {
        message: String,
        remedy: Option<String>,
        #[serde(default)]
        log: Vec<String>,
    }
    if let Ok(failure) = serde_json::from_slice(body) {
        return failure;
    }
    match serde_json::from_slice(body) {
        Ok(Words {
            message,
            remedy,
            log,
        }) => Failure {
            code: code_of(status),
            message,
            remedy,
            log,
        },
        Err(_) => not_understood(&format!("{status} without a reason")),
    }
}

/// The least that a status says about a failure.
fn code_of(status: StatusCode) -> Code {
    match status {
        StatusCode::BAD_REQUEST => Code::InvalidRequest,
        StatusCode::SERVICE_UNAVAILABLE => Code::ShuttingDown,
        _ => Code::Internal,
    }
}

/// The next bytes of an answer that is read while it is written; nothing at its end.
pub(crate) async fn next_piece(
    client: &Client,
    body: &mut Incoming,
) -> Result<Option<Bytes>, Failure> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Ok(frame)) => {
                // Trailers are of no interest.
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Some(Err(error)) => return Err(cut_off(client.socket(), &error)),
        }
    }
}
