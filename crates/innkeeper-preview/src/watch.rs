//! Watches the apps that are served: an app whose port refuses connections has ended, and its worker brings it back.
//!
//! A connection without a request every two seconds, as load balancers probe their servers. It needs no process in the guest.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use innkeeper_model::GuestName;
use tokio::time::{Instant, MissedTickBehavior, timeout};

use crate::health::Health;
use crate::probe_socket;
use crate::workers::{WakeReason, Workers};

/// Interval of the probes of an app.
const INTERVAL: Duration = Duration::from_secs(2);

/// Timeout of a probe. An app that is too busy to accept a connection has not ended.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Number of concurrent probes.
const PROBES: usize = 64;

/// The watch of all apps.
pub(crate) struct Watch {
    pub(crate) health: Health,
    pub(crate) workers: Workers,
}

impl Watch {
    /// Watches until it is dropped.
    pub(crate) async fn run(self) {
        let mut timer = tokio::time::interval(INTERVAL);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            timer.tick().await;
            self.probe_all().await;
        }
    }

    async fn probe_all(&self) {
        let probes = self.health.watched().into_iter();
        let mut ended = stream::iter(probes)
            // No async closure: rustc 1.95 panics about it when it compiles incrementally.
            .map(|(slug, ports)| async move { Some((slug, refusing(&ports).await?)) })
            .buffer_unordered(PROBES);
        while let Some(result) = ended.next().await {
            if let Some((slug, port)) = result {
                self.report(&slug, port);
            }
        }
        for slug in self.health.stabilized(Instant::now()) {
            self.workers.wake(&slug, WakeReason::Check);
        }
    }

    fn report(&self, slug: &GuestName, port: SocketAddr) {
        // The route may have changed during the probe: the app was stopped on purpose.
        let is_watched = |(watched, ports): &(GuestName, Vec<SocketAddr>)| {
            watched == slug && ports.contains(&port)
        };
        if self.health.trouble(slug).is_none() && self.health.watched().iter().any(is_watched) {
            self.health
                .ended(slug, refusal(port.port()), Instant::now());
            self.workers.wake(slug, WakeReason::Check);
        }
    }
}

/// Returns the finding about a port that refuses connections, as a clause.
pub(crate) fn refusal(port: u16) -> String {
    format!("port {port} refuses connections")
}

/// Returns the first of these ports that refuses connections or cannot be reached.
pub(crate) async fn refusing(ports: &[SocketAddr]) -> Option<SocketAddr> {
    for port in ports {
        if let Ok(Err(error)) = timeout(TIMEOUT, probe_socket::connect(*port)).await
            && is_refusal(error.kind())
        {
            return Some(*port);
        }
    }
    None
}

/// Distinguishes an app that has ended from a host that has run out of sockets.
fn is_refusal(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
    )
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn slug() -> GuestName {
        GuestName::parse("web-7").expect("a name")
    }

    #[tokio::test]
    async fn an_app_that_refuses_connections_wakes_its_worker_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let port = listener.local_addr().expect("an address");
        let (workers, mut to_start) = Workers::new();
        let watch = Watch {
            health: Health::default(),
            workers,
        };
        watch.health.serve(&slug(), vec![port]);
        watch.probe_all().await;
        assert!(to_start.try_recv().is_err(), "it accepts connections");

        drop(listener);
        watch.probe_all().await;
        let worker = to_start.try_recv().expect("woken");
        assert_eq!(worker.wakeups.borrow().checks, 1);
        let trouble = watch.health.trouble(&slug()).expect("down");
        assert_eq!(trouble.reason, refusal(port.port()));
        watch.probe_all().await;
        assert_eq!(worker.wakeups.borrow().checks, 1, "known already");
    }

    #[tokio::test]
    async fn an_app_whose_route_was_withdrawn_is_not_reported() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let port = listener.local_addr().expect("an address");
        drop(listener);
        let (workers, mut to_start) = Workers::new();
        let watch = Watch {
            health: Health::default(),
            workers,
        };
        watch.health.serve(&slug(), vec![port]);
        watch.health.suspend(&slug());
        watch.report(&slug(), port);
        assert!(to_start.try_recv().is_err());
        assert_eq!(watch.health.trouble(&slug()), None);
    }
}
