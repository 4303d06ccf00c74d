//! The HTTP/1.1 server of the programs that strangers reach: its connections, their limits, and an orderly stop.
//!
//! Each connection occupies a slot until it ends, also after it switched to another protocol: a handler that takes over a
//! connection keeps the request's [`Link`].

mod client;
mod listen;
mod stall;

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::HttpService;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::debug;

use crate::quota::{PeerQuota, PeerSlot};
pub use client::client_address;
pub use listen::{Listener, Passed};
use stall::StallGuard;

/// The pause after a failed accept, for example when no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The time that a connection without a request has for one when the program stops.
const LAST_REQUEST: Duration = Duration::from_secs(2);

/// Limits of connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The maximum number of concurrent connections. Further ones wait in the kernel. One peer of TCP, other than this host,
    /// holds at most half of them.
    pub connections: usize,
    /// Timeout for a request's head, counted from the end of the previous request.
    pub head: Duration,
    /// The maximum length of a request's head, in bytes.
    pub head_length: usize,
    /// Timeout for a client that reads none of its response.
    pub stall: Duration,
}

/// The connection of a request, in the request's extensions. A clone keeps the connection's slot occupied, and delays the
/// program's stop by the grace period at most.
#[derive(Clone, Debug)]
pub struct Link {
    /// The address at the other end. `None` on a Unix socket.
    pub peer: Option<IpAddr>,
    stopped: watch::Receiver<bool>,
    _slots: Arc<(OwnedSemaphorePermit, Option<PeerSlot>)>,
}

impl Link {
    /// Returns when the program stops.
    pub async fn stopped(&mut self) {
        // An error means that the sender is gone, which is a stop, too.
        self.stopped.wait_for(|stopped| *stopped).await.ok();
    }
}

/// Serves until `stopping`, then waits for requests in flight, for `grace` at most. An accepted connection whose first
/// request is still on its way counts as one for a moment: the sender would not repeat it. Reports whether all requests
/// ended in time; the others are canceled with the runtime.
pub async fn serve<L: Listener>(
    listener: L,
    app: Router,
    limits: Limits,
    stopping: impl Future<Output = ()>,
    grace: Duration,
) -> bool {
    let (stop, stopped) = watch::channel(false);
    tokio::select! {
        never = accept(&listener, app, limits, &stopped) => match never {},
        () = stopping => {}
    }
    drop((listener, stopped));
    stop.send_replace(true);
    // Each connection holds a receiver.
    tokio::time::timeout(grace, stop.closed()).await.is_ok()
}

async fn accept<L: Listener>(
    listener: &L,
    app: Router,
    limits: Limits,
    stopped: &watch::Receiver<bool>,
) -> Infallible {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let peers = PeerQuota::new(limits.connections / 2);
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(limits.head_length);
    loop {
        // The semaphore is never closed, so this cannot fail.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            continue;
        };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // A proxy on this host carries the requests of all clients; the programs limit each of them.
        let peer_slot = match peer.filter(|peer| !peer.is_loopback()) {
            None => None,
            Some(peer) => match peers.acquire(peer) {
                Some(slot) => Some(slot),
                None => {
                    debug!(%peer, "closed a connection: its peer has too many");
                    continue;
                }
            },
        };
        let mut link = Link {
            peer,
            stopped: stopped.clone(),
            _slots: Arc::new((slot, peer_slot)),
        };
        let app = app.clone().layer(Extension(link.clone()));
        let service = TowerToHyperService::new(app);
        let protocol = protocol.clone();
        tokio::spawn(async move {
            if !has_request::<L>(&stream, &mut link, limits.head).await {
                return;
            }
            let stream = TokioIo::new(StallGuard::new(stream, limits.stall));
            let connection = protocol.serve_connection(stream, service);
            if let Err(error) = drive(connection.with_upgrades(), &mut link).await {
                debug!(%error, "a connection ended early");
            }
        });
    }
}

/// Waits for the first byte of a request: as long as a head may take, or for a moment once the program stops.
async fn has_request<L: Listener>(stream: &L::Stream, link: &mut Link, head: Duration) -> bool {
    let last = async {
        link.stopped().await;
        tokio::time::sleep(LAST_REQUEST).await;
    };
    tokio::select! {
        biased;
        sent = L::has_sent(stream) => sent,
        () = last => false,
        () = tokio::time::sleep(head) => false,
    }
}

/// Serves a connection with a request to its end. Once the program stops, it ends after that request.
async fn drive<I, S>(
    connection: http1::UpgradeableConnection<TokioIo<StallGuard<I>>, S>,
    link: &mut Link,
) -> hyper::Result<()>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: HttpService<Incoming, ResBody = axum::body::Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut connection = pin!(connection);
    tokio::select! {
        // Reads first: hyper closes a connection from which it has read nothing.
        biased;
        result = connection.as_mut() => return result,
        () = link.stopped() => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}
