//! Connections and their limits: how many at a time, and the timeouts of a request's head and body.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use listenfd::ListenFd;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use crate::error::WebhookError;
use crate::peers::{Peer, sharing};

/// The maximum length of a request's head, in bytes. Those of GitHub and of proxies have about 1,000.
const MAX_HEAD: usize = 16 * 1024;

/// The pause after a failed accept, for example when no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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

/// Serves until `stopping`, then waits for requests in flight, for `grace` at most.
pub(crate) async fn serve(
    listener: TcpListener,
    app: Router,
    limits: ServerLimits,
    stopping: impl Future<Output = ()>,
    grace: Duration,
) {
    let graceful = GracefulShutdown::new();
    tokio::select! {
        never = accept(&listener, app, limits, &graceful) => match never {},
        () = stopping => {}
    }
    drop(listener);
    if tokio::time::timeout(grace, graceful.shutdown())
        .await
        .is_err()
    {
        warn!("canceled requests in flight; GitHub can deliver them again");
    }
}

async fn accept(
    listener: &TcpListener,
    app: Router,
    limits: ServerLimits,
    graceful: &GracefulShutdown,
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
        let connection = protocol.serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection ended early");
            }
            drop((slot, peer_slot));
        });
    }
}
