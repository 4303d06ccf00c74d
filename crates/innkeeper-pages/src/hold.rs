//! Holds requests while an app restarts: Caddy sends a subrequest before it passes a request on, and waits for its response.
//!
//! The subrequest has no body. The visitor's request, with its body or its WebSocket upgrade, reaches the app as a whole
//! afterwards. A hold ends when the app's port accepts a connection, so it needs no daemon.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use innkeeper_model::{GuestName, PROBE_DSCP, SlotRange};
use innkeeper_service::{Pages, PeerQuota, PeerSlot};
use ipnet::Ipv4Net;
use parking_lot::Mutex;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Interval at which a port is tried while requests wait for it.
const INTERVAL: Duration = Duration::from_millis(50);

/// Interval afterwards, and the time for which a port that stays closed is remembered, so that later requests get the page
/// at once.
const SLOW_INTERVAL: Duration = Duration::from_secs(1);
const MEMORY: Duration = Duration::from_secs(300);

/// Timeout of one connection.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// Highest number of ports that are remembered.
const PORTS: usize = 4096;

/// An app that requests wait for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct App {
    /// Its preview.
    pub(crate) slug: GuestName,
    /// Its ports. Without any, no request waits.
    pub(crate) ports: Vec<SocketAddrV4>,
}

/// A request's permission to wait, until it is dropped.
pub(crate) struct Place {
    _total: OwnedSemaphorePermit,
    _address: Option<PeerSlot>,
}

/// End of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// The app accepts connections.
    Ready,
    /// It does not, or too many requests wait.
    GivenUp,
}

/// Requests that wait for apps. Clones share them.
#[derive(Clone)]
pub(crate) struct Holds {
    time: Duration,
    /// The addresses of guests.
    guests: Ipv4Net,
    of_address: PeerQuota,
    all: Arc<Semaphore>,
    closed: Arc<Mutex<HashMap<SocketAddr, Closed>>>,
}

/// A port that does not accept connections.
#[derive(Clone, Debug)]
struct Closed {
    since: Instant,
    opened: watch::Receiver<bool>,
}

impl Holds {
    pub(crate) fn new(settings: &Pages, guests: SlotRange) -> Self {
        Self {
            guests: guests.subnet(),
            time: Duration::from_secs(settings.hold_seconds),
            of_address: PeerQuota::new(settings.max_holds_per_address),
            all: Arc::new(Semaphore::new(settings.share())),
            closed: Arc::default(),
        }
    }

    /// Reports whether a request may wait for an app: it has ports, and they are those of a guest. Anybody on the host can send
    /// requests to the socket.
    pub(crate) fn may_wait_for(&self, app: &App) -> bool {
        let is_guest = |port: &SocketAddrV4| self.guests.contains(port.ip());
        !app.ports.is_empty() && app.ports.iter().all(is_guest)
    }

    /// Acquires a place for a visitor's request. `None` while the visitor's requests, or all together, have reached their limit.
    pub(crate) fn place(&self, visitor: Option<IpAddr>) -> Option<Place> {
        let address = match visitor {
            None => None,
            Some(visitor) => Some(self.of_address.acquire(visitor)?),
        };
        let total = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some(Place {
            _total: total,
            _address: address,
        })
    }

    /// Waits until all ports of an app accept connections. Gives up `hold_seconds` after the first request that found one
    /// closed, and at once while the visitor's requests, or all together, have reached their limit.
    pub(crate) async fn wait(&self, app: &App, visitor: Option<IpAddr>) -> Held {
        if !self.may_wait_for(app) {
            return Held::GivenUp;
        }
        for port in &app.ports {
            let port = SocketAddr::V4(*port);
            if !accepts(port, CONNECT_TIMEOUT).await
                && self.wait_for(port, visitor).await == Held::GivenUp
            {
                return Held::GivenUp;
            }
        }
        Held::Ready
    }

    /// Waits until a port accepts connections that did not.
    async fn wait_for(&self, app: SocketAddr, visitor: Option<IpAddr>) -> Held {
        let Some(_place) = self.place(visitor) else {
            return Held::GivenUp;
        };
        let Some(mut closed) = self.closed(app) else {
            return Held::GivenUp;
        };
        let end = closed.since + self.time;
        match timeout_at(end, closed.opened.wait_for(|is_open| *is_open)).await {
            Ok(Ok(_)) => Held::Ready,
            _ => Held::GivenUp,
        }
    }

    /// Returns what is known about a closed port. Its first request starts the task that tries it.
    fn closed(&self, app: SocketAddr) -> Option<Closed> {
        let mut ports = self.closed.lock();
        if let Some(closed) = ports.get(&app) {
            return Some(closed.clone());
        }
        if ports.len() >= PORTS {
            return None;
        }
        let (open, opened) = watch::channel(false);
        let since = Instant::now();
        let closed = Closed { since, opened };
        ports.insert(app, closed.clone());
        let holds = self.clone();
        tokio::spawn(async move {
            let is_open = holds.try_until_open(app, since).await;
            holds.closed.lock().remove(&app);
            open.send_replace(is_open);
        });
        Some(closed)
    }

    async fn try_until_open(&self, app: SocketAddr, since: Instant) -> bool {
        while since.elapsed() < MEMORY {
            if accepts(app, CONNECT_TIMEOUT).await {
                return true;
            }
            let is_awaited = since.elapsed() < self.time;
            sleep(if is_awaited { INTERVAL } else { SLOW_INTERVAL }).await;
        }
        false
    }
}

/// Reports whether a port accepts a connection. It is a probe, which is no use of a guest, and wakes none.
pub(crate) async fn accepts(port: SocketAddr, limit: Duration) -> bool {
    let connected = timeout(limit, probe(port)).await;
    matches!(connected, Ok(Ok(_)))
}

async fn probe(port: SocketAddr) -> io::Result<TcpStream> {
    let socket = match port {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if port.is_ipv4() {
        // The two bits below the code point are for congestion.
        socket.set_tos_v4(u32::from(PROBE_DSCP) << 2)?;
    }
    socket.connect(port).await
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const VISITOR: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));

    fn holds(seconds: u64) -> Holds {
        let settings = Pages {
            hold_seconds: seconds,
            max_holds_per_address: 2,
            max_connections: 9,
            ..Pages::default()
        };
        Holds::new(&settings, "127.0.0.0/16".parse().expect("a subnet"))
    }

    fn app(port: SocketAddrV4) -> App {
        App {
            slug: GuestName::parse("web-7").expect("a name"),
            ports: vec![port],
        }
    }

    /// Returns an address that refuses connections.
    async fn closed_port() -> SocketAddrV4 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        match listener.local_addr().expect("an address") {
            SocketAddr::V4(address) => address,
            SocketAddr::V6(address) => panic!("{address}"),
        }
    }

    /// Waits until so many places are free.
    async fn wait_for(holds: &Holds, free: usize) {
        while holds.all.available_permits() != free {
            sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn request_waits_until_the_app_listens() {
        let (holds, port) = (holds(60), closed_port().await);
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let holds = holds.clone();
                tokio::spawn(async move { holds.wait(&app(port), VISITOR).await })
            })
            .collect();
        wait_for(&holds, 1).await;
        let listener = TcpListener::bind(port).await.expect("binds");
        for request in waiting {
            assert_eq!(request.await.expect("ends"), Held::Ready);
        }
        assert_eq!(holds.wait(&app(port), VISITOR).await, Held::Ready);
        wait_for(&holds, 3).await;
        drop(listener);
    }

    #[tokio::test]
    async fn app_that_stays_down_is_waited_for_once() {
        let (holds, port) = (holds(1), closed_port().await);
        assert_eq!(holds.wait(&app(port), VISITOR).await, Held::GivenUp);
        let closed = SocketAddr::V4(port);
        let since = holds.closed.lock()[&closed].since;
        assert_eq!(holds.wait(&app(port), VISITOR).await, Held::GivenUp);
        // The second request ended at the first one's limit.
        assert_eq!(holds.closed.lock()[&closed].since, since);
    }

    #[tokio::test]
    async fn only_guests_are_waited_for() {
        let listener = TcpListener::bind("127.1.0.1:0").await.expect("binds");
        let SocketAddr::V4(other) = listener.local_addr().expect("an address") else {
            panic!("not IPv4");
        };
        assert_eq!(holds(60).wait(&app(other), VISITOR).await, Held::GivenUp);
        assert!(holds(60).closed.lock().is_empty());
    }

    #[tokio::test]
    async fn places_are_bounded_per_address_and_in_total() {
        let (holds, port) = (holds(60), closed_port().await);
        let other = Some(IpAddr::from([192, 0, 2, 2]));
        let wait = |visitor| {
            let holds = holds.clone();
            tokio::spawn(async move { holds.wait(&app(port), visitor).await })
        };
        let waiting = [wait(VISITOR), wait(VISITOR)];
        wait_for(&holds, 1).await;
        assert_eq!(wait(VISITOR).await.expect("ends"), Held::GivenUp);
        let third = wait(other);
        wait_for(&holds, 0).await;
        assert_eq!(wait(other).await.expect("ends"), Held::GivenUp);
        // A visitor who leaves frees the place.
        third.abort();
        wait_for(&holds, 1).await;
        let again = wait(other);
        wait_for(&holds, 0).await;
        for request in waiting.into_iter().chain([again]) {
            request.abort();
        }
        wait_for(&holds, 3).await;
    }
}
