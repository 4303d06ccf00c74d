//! Connections and their limits: how many at a time, and the timeouts of a request's head and body.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::{Extension, Router};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::HttpService;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use listenfd::ListenFd;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tracing::{debug, warn};

use crate::error::WebhookError;
use crate::peers::{Peer, sharing};

/// The maximum length of a request's head, in bytes. Those of GitHub and of proxies have about 1,000.
const MAX_HEAD: usize = 16 * 1024;

/// The pause after a failed accept, for example when no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The time that a connection without a request has for one when the program stops.
const LAST_REQUEST: Duration = Duration::from_secs(2);

/// Limits of connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerLimits {
    /// The maximum number of concurrent connections. Further ones wait in the kernel.
    pub(crate) connections: usize,
    /// Timeout for a request's head, counted from the end of the previous request.
    pub(crate) head: Duration,
}

/// Returns the socket that systemd has opened (sd_listen_fds(3)), or else listens on this address.
///
/// # Errors
/// [`WebhookError::Listen`].
pub(crate) fn listen(address: SocketAddr) -> Result<TcpListener, WebhookError> {
    bind(address).map_err(|source| WebhookError::Listen {
        address: address.to_string(),
        source,
    })
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = match ListenFd::from_env().take_tcp_listener(0)? {
        Some(passed) => passed,
        None => std::net::TcpListener::bind(address)?,
    };
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Serves until `stopping`, then waits for requests in flight, for `grace` at most. An accepted connection whose first
/// request is still on its way counts as one for a moment: the sender would not repeat it.
pub(crate) async fn serve(
    listener: TcpListener,
    app: Router,
    limits: ServerLimits,
    stopping: impl Future<Output = ()>,
    grace: Duration,
) {
    let (stop, stopped) = watch::channel(false);
    tokio::select! {
        never = accept(&listener, app, limits, &stopped) => match never {},
        () = stopping => {}
    }
    drop((listener, stopped));
    stop.send_replace(true);
    // Each connection holds a receiver.
    if tokio::time::timeout(grace, stop.closed()).await.is_err() {
        warn!("canceled requests in flight; GitHub can deliver them again");
    }
}

async fn accept(
    listener: &TcpListener,
    app: Router,
    limits: ServerLimits,
    stopped: &watch::Receiver<bool>,
) -> std::convert::Infallible {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let peers = sharing(limits.connections);
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(MAX_HEAD);
    loop {
        // The semaphore is never closed, so this cannot fail.
        let slot = Arc::clone(&slots).acquire_owned().await;
        let (stream, peer) = match listener.accept().await {
            Ok((stream, address)) => (stream, address.ip().to_canonical()),
            Err(error) => {
                debug!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // A proxy on this host carries the requests of all clients; `receive` limits each of them.
        let peer_slot = if peer.is_loopback() {
            None
        } else if let Some(slot) = peers.acquire(peer) {
            Some(slot)
        } else {
            debug!(%peer, "closed a connection: its peer has too many");
            continue;
        };
        let app = app.clone().layer(Extension(Peer(peer)));
        let service = TowerToHyperService::new(app);
        let (protocol, mut stopped) = (protocol.clone(), stopped.clone());
        tokio::spawn(async move {
            if has_request(&stream, &mut stopped, limits.head).await {
                let connection = protocol.serve_connection(TokioIo::new(stream), service);
                if let Err(error) = drive(connection, stopped).await {
                    debug!(%error, "a connection ended early");
                }
            }
            drop((slot, peer_slot));
        });
    }
}

/// Waits for the first byte of a request: as long as a head may take, or for a moment once the program stops.
async fn has_request(
    stream: &TcpStream,
    stopped: &mut watch::Receiver<bool>,
    head: Duration,
) -> bool {
    let last = async {
        // An error means that the sender is gone, which is a stop, too.
        stopped.wait_for(|stopped| *stopped).await.ok();
        tokio::time::sleep(LAST_REQUEST).await;
    };
    let mut first = [0];
    tokio::select! {
        biased;
        peeked = stream.peek(&mut first) => matches!(peeked, Ok(1..)),
        () = last => false,
        () = tokio::time::sleep(head) => false,
    }
}

/// Serves a connection with a request to its end. Once the program stops, it ends after that request.
async fn drive<S>(
    connection: http1::Connection<TokioIo<TcpStream>, S>,
    mut stopped: watch::Receiver<bool>,
) -> hyper::Result<()>
where
    S: HttpService<Incoming, ResBody = Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut connection = pin!(connection);
    tokio::select! {
        // Reads first: hyper closes a connection from which it has read nothing.
        biased;
        result = connection.as_mut() => return result,
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}
