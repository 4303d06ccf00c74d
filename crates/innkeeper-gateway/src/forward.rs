//! Requests that innkeeperd responds to. Each has a connection of its own, so none waits for another.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use innkeeper_model::access::Actor;
use innkeeper_service::LogThrottle;
use innkeeper_service::server::Link;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tracing::{debug, error};

use crate::patient::Patient;
use crate::refuse::Refusal;
use crate::upload::{self, Pace, Uploaded};
use crate::{download, headers, tunnel};

/// Timeout for innkeeperd to accept a connection: longer only when its queue is full.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// innkeeperd's socket for the gateway.
#[derive(Debug)]
pub(crate) struct Daemon {
    socket: PathBuf,
    warnings: LogThrottle,
}

impl Daemon {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            warnings: LogThrottle::default(),
        }
    }

    /// Passes a request on, whose headers are those for innkeeperd, and returns the response. `held` is dropped when
    /// the response, or the connection that switched to another protocol, has ended.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`], or [`Refusal::TooSlow`] for a body that did not arrive.
    pub(crate) async fn forward(
        &self,
        mut request: Request<Body>,
        protocol: Option<HeaderValue>,
        link: &Link,
        pace: Pace,
        held: impl Send + Unpin + 'static,
    ) -> Result<Response<Body>, Refusal> {
        let client = request.extensions_mut().remove::<OnUpgrade>();
        let switch = protocol.filter(|_| client.is_some());
        if let Some(protocol) = switch.clone() {
            let headers = request.headers_mut();
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, protocol);
        }
        let mut response = self.exchange(request, switch.is_some(), pace).await?;
        let daemon = response.extensions_mut().remove::<OnUpgrade>();
        let is_switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        match (is_switched, switch, client, daemon) {
            (false, ..) => {
                let (mut head, body) = response.into_parts();
                headers::of_response(&mut head.headers);
                let body = download::body(body, &head.headers, link, held);
                Ok(Response::from_parts(head, body))
            }
            (true, Some(protocol), Some(client), Some(daemon)) => {
                tunnel::open(client, daemon, link.clone(), held);
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                let headers = response.headers_mut();
                headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(header::UPGRADE, protocol);
                Ok(response)
            }
            (true, ..) => Err(Refusal::Unavailable),
        }
    }

    /// Requests a path without an actor.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`].
    pub(crate) async fn get(&self, path: &'static str) -> Result<Response<Incoming>, Refusal> {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = Uri::from_static(path);
        let host = HeaderValue::from_static("innkeeper");
        request.headers_mut().insert(header::HOST, host);
        self.request(request).await
    }

    /// Requests a path as an actor, for a client at an address.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`].
    pub(crate) async fn get_as(
        &self,
        path: &str,
        actor: &Actor,
        source: IpAddr,
    ) -> Result<Response<Incoming>, Refusal> {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = path.parse().map_err(|_| Refusal::NotFound)?;
        *request.headers_mut() = headers::of_request(HeaderMap::new(), actor, source);
        self.request(request).await
    }

    /// Sends a request of the gateway itself.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`].
    pub(crate) async fn request(
        &self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, Refusal> {
        let mut connection = self.connect(false).await?;
        let response = connection.send_request(request).await;
        response.map_err(|error| self.unavailable(&error))
    }

    async fn exchange(
        &self,
        request: Request<Body>,
        is_tunnel: bool,
        pace: Pace,
    ) -> Result<Response<Incoming>, Refusal> {
        let (head, body) = request.into_parts();
        let mut connection = match self.connect(is_tunnel).await {
            Ok(connection) => connection,
            Err(refusal) => {
                upload::discard(body, pace, ());
                return Err(refusal);
            }
        };
        if body.is_end_stream() {
            let request = Request::from_parts(head, Body::empty());
            let response = connection.send_request(request).await;
            return response.map_err(|error| self.unavailable(&error));
        }
        let (body, uploading) = upload::pass_on(body, pace);
        let response = connection
            .send_request(Request::from_parts(head, body))
            .await;
        match response {
            Ok(response) => Ok(response),
            Err(error) => match timeout(pace.piece, uploading).await {
                Ok(Ok(Uploaded::Broken)) => Err(Refusal::TooSlow),
                _ => Err(self.unavailable(&error)),
            },
        }
    }

    async fn connect(&self, is_tunnel: bool) -> Result<SendRequest<Body>, Refusal> {
        let connected = timeout(CONNECT_TIMEOUT, UnixStream::connect(&self.socket)).await;
        let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let stream = connected.map_err(|error| self.not_connected(&error))?;
        let opened = http1::handshake(TokioIo::new(Patient::new(stream, is_tunnel))).await;
        let (sender, connection) = opened.map_err(|error| self.unavailable(&error))?;
        // Its errors also reach the request or the body that waits for it.
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
    }

    fn not_connected(&self, error: &io::Error) -> Refusal {
        let is_away = matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
        );
        if is_away {
            debug!(%error, "innkeeperd is away");
        } else if self.warnings.count(Instant::now()).is_some() {
            let socket = self.socket.display();
            error!(%error, %socket, "cannot connect to innkeeperd; is this user's group that of gateway.group?");
        }
        Refusal::Unavailable
    }

    fn unavailable(&self, error: &hyper::Error) -> Refusal {
        debug!(%error, "innkeeperd did not respond");
        Refusal::Unavailable
    }
}
