//! Requests that wake a sleeping preview, and wait until its app accepts connections.
//!
//! The daemon receives a datagram with the preview's slug: the program that strangers reach can request a wake and nothing
//! else. One task for each app does so, however many requests wait. A datagram may be lost, or the daemon restart, so it is
//! repeated until the preview's status changes. A request that is sent again, after a crash of this program, has the same effect.
//!
//! ```text
//! request ──► wait ──► task of the app: datagram ──► innkeeperd ──► the guest wakes
//!    ▲                   │                              │
//!    └─── ready ◄────────┴── ports ◄── app     status ◄─┘
//! ```

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use innkeeper_model::GuestName;
use innkeeper_model::preview::PreviewState;
use innkeeper_model::preview::page::{Interruption, PageStatus};
use innkeeper_service::Pages;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use crate::hold::{App, Held, Place, accepts};
use crate::status::{Latest, Statuses};

/// Interval of datagrams about the same preview.
const REQUEST_INTERVAL: Duration = Duration::from_secs(1);

/// The same after its socket was full or absent.
const REQUEST_AGAIN: Duration = Duration::from_millis(100);

/// Interval at which the app's ports are tried.
const INTERVAL: Duration = Duration::from_millis(50);

/// Timeout of a connection: packets to a sleeping guest are dropped.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(150);

/// Highest number of apps that are woken at a time.
const APPS: usize = 4096;

/// The condition of a preview, as far as a request for it depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A request wakes it. Its processes may still be shutting down, with open ports.
    Asleep,
    /// It is being woken, or its app starts.
    Waking,
    /// The daemon does nothing more about it by itself: its app answers now or never.
    Settled,
    /// It does not wake.
    Down,
}

impl Phase {
    fn of(status: Option<&PageStatus>, now: Timestamp) -> Self {
        let Some(status) = status else {
            return Self::Down;
        };
        let retry_at = status.wake.and_then(|wake| wake.retry_at);
        match status.interruption {
            Some(Interruption::Stopped) => Self::Down,
            Some(Interruption::Restarting) => Self::Waking,
            Some(Interruption::Asleep) => match (status.wake, retry_at) {
                (_, Some(retry_at)) if now < retry_at => Self::Down,
                (Some(_), None) => Self::Waking,
                _ => Self::Asleep,
            },
            None if status.state != PreviewState::Live && status.state.is_settled() => {
                Self::Settled
            }
            None => Self::Waking,
        }
    }
}

/// Reports whether a request for a preview with this status wakes it, or waits for its wake.
pub(crate) fn concerns(status: &Latest) -> bool {
    status.as_ref().is_some_and(|status| {
        status.wake.is_some() || status.interruption == Some(Interruption::Asleep)
    })
}

/// Wakes previews. Clones share their tasks.
#[derive(Clone)]
pub(crate) struct Wakes {
    timeout: Duration,
    statuses: Statuses,
    daemon: Option<Arc<UnixDatagram>>,
    path: Arc<Path>,
    apps: Arc<Mutex<HashMap<App, Awaited>>>,
    /// Times of the last datagrams about previews without a task.
    requested: Arc<Mutex<HashMap<GuestName, Instant>>>,
}

/// An app that is being woken.
struct Awaited {
    /// The task's end, which each request postpones.
    until: Instant,
    held: watch::Receiver<Option<Held>>,
}

impl Wakes {
    /// Opens the socket to the daemon. Without it, no preview is woken.
    pub(crate) fn new(settings: &Pages, daemon: PathBuf, statuses: Statuses) -> Self {
        let opened = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        if let Err(error) = &opened {
            warn!(%error, "cannot create a socket: no request wakes a preview");
        }
        Self {
            timeout: Duration::from_secs(settings.wake_timeout_seconds),
            statuses,
            daemon: opened.ok().map(Arc::new),
            path: daemon.into(),
            apps: Arc::default(),
            requested: Arc::default(),
        }
    }

    /// Wakes a preview, and waits for `limit` at most until its app accepts connections. The wake goes on without the request.
    pub(crate) async fn wait(&self, app: &App, limit: Duration, _place: Place) -> Held {
        let Some(mut held) = self.follow(app) else {
            return Held::GivenUp;
        };
        match timeout(limit, held.wait_for(Option::is_some)).await {
            Ok(Ok(held)) => held.unwrap_or(Held::GivenUp),
            _ => Held::GivenUp,
        }
    }

    /// Requests that a preview is started again that has no app to wait for, at most once in a second.
    pub(crate) fn request_once(&self, slug: &GuestName) {
        {
            let mut requested = self.requested.lock();
            requested.retain(|_, at| at.elapsed() < REQUEST_INTERVAL);
            if requested.len() >= APPS || requested.contains_key(slug) {
                return;
            }
            requested.insert(slug.clone(), Instant::now());
        }
        self.request(slug);
    }

    /// Returns the result of an app's task. The first request starts it.
    fn follow(&self, app: &App) -> Option<watch::Receiver<Option<Held>>> {
        let until = Instant::now() + self.timeout;
        let mut apps = self.apps.lock();
        if let Some(awaited) = apps.get_mut(app) {
            awaited.until = until;
            return Some(awaited.held.clone());
        }
        if apps.len() >= APPS {
            return None;
        }
        let (done, held) = watch::channel(None);
        let awaited = Awaited {
            until,
            held: held.clone(),
        };
        apps.insert(app.clone(), awaited);
        let (wakes, app) = (self.clone(), app.clone());
        tokio::spawn(async move {
            let held = wakes.until_ready(&app).await;
            wakes.apps.lock().remove(&app);
            done.send_replace(Some(held));
        });
        Some(held)
    }

    async fn until_ready(&self, app: &App) -> Held {
        let status = self.statuses.watch(&app.slug).await;
        let mut next_request = Instant::now();
        loop {
            let latest = status.borrow().clone();
            let phase = Phase::of(latest.as_deref(), Timestamp::now());
            if phase == Phase::Down {
                return Held::GivenUp;
            }
            if phase == Phase::Asleep && next_request <= Instant::now() {
                next_request = Instant::now() + self.request(&app.slug);
            }
            if phase != Phase::Asleep && are_open(app).await {
                return Held::Ready;
            }
            if phase == Phase::Settled || self.has_ended(app) {
                return Held::GivenUp;
            }
            sleep(INTERVAL).await;
        }
    }

    fn has_ended(&self, app: &App) -> bool {
        let apps = self.apps.lock();
        apps.get(app)
            .is_none_or(|awaited| awaited.until <= Instant::now())
    }

    /// Sends one datagram. Returns the time until the next one.
    fn request(&self, slug: &GuestName) -> Duration {
        let Some(daemon) = &self.daemon else {
            return REQUEST_INTERVAL;
        };
        match daemon.send_to(slug.as_str().as_bytes(), &self.path) {
            Ok(_) => REQUEST_INTERVAL,
            Err(error) => {
                match error.kind() {
                    // The daemon restarts or has much to do.
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::WouldBlock => {
                        debug!(%slug, %error, "cannot request a wake yet");
                    }
                    _ => warn!(%slug, %error, "cannot request a wake"),
                }
                REQUEST_AGAIN
            }
        }
    }
}

/// Reports whether all ports of an app accept a connection.
async fn are_open(app: &App) -> bool {
    for port in &app.ports {
        if !accepts(SocketAddr::V4(*port), CONNECT_TIMEOUT).await {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests;
