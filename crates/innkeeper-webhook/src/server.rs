//! Connections, and what they may take: so many at a time, so long for a request's head, so long for its
//! body.

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
use crate::peers::{Peer, Peers};

/// The longest head of a request, in bytes. Those of GitHub and of proxies have about 1,000.
const MAX_HEAD: usize = 16 * 1024;

/// How long to wait when there is no file descriptor left for a connection.
const BREATH: Duration = Duration::from_millis(100);

/// What connections may take.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// How many there may be at the same time. More wait in the kernel.
    pub connections: usize,
    /// How long a request's head may take to arrive, counted from the end of the one before.
    pub head: Duration,
}

/// The socket that systemd has opened (sd_listen_fds(3)), or one on this address.
///
/// # Errors
/// [`WebhookError::Listen`].
pub fn listen(address: SocketAddr) -> Result<TcpListener, WebhookError> {
    bind(address).map_err(|source| WebhookError::Listen {
        address: address.to_string(),
        source,
    })
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = match ListenFd::from_env().take_tcp_listener(0)? {
        Some(given) => given,
        None => std::net::TcpListener::bind(address)?,
    };
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Serves until `stopping`, then lets requests under way end, for no longer than `goodbye`.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    limits: ServerLimits,
    stopping: impl Future<Output = ()>,
    goodbye: Duration,
) {
    let graceful = GracefulShutdown::new();
    tokio::select! {
        never = accept(&listener, app, limits, &graceful) => match never {},
        () = stopping => {}
    }
    drop(listener);
    if tokio::time::timeout(goodbye, graceful.shutdown())
        .await
        .is_err()
    {
        warn!("requests are cut off; GitHub can deliver them again");
    }
}

async fn accept(
    listener: &TcpListener,
    app: Router,
    limits: ServerLimits,
    graceful: &GracefulShutdown,
) -> std::convert::Infallible {
    let places = Arc::new(Semaphore::new(limits.connections));
    let peers = Peers::sharing(limits.connections);
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(MAX_HEAD);
    loop {
        // It is never closed, so there is a place sooner or later.
        let place = Arc::clone(&places).acquire_owned().await;
        let (stream, peer) = match listener.accept().await {
            Ok((stream, address)) => (stream, address.ip().to_canonical()),
            Err(error) => {
                debug!(%error, "a connection was not accepted");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        // A proxy on this host carries the requests of all clients; `receive` limits each of those.
        let share = if peer.is_loopback() {
            None
        } else if let Some(share) = peers.enter(peer) {
            Some(share)
        } else {
            debug!(%peer, "a connection was closed: its peer has too many");
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
            drop((place, share));
        });
    }
}
