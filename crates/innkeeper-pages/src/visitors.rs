//! Limits of live logs: of each visitor's address, and of all together.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::HeaderMap;
use innkeeper_service::{Pages, PeerQuota, PeerSlot};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Header with the visitor's address: Caddy appends it to the ones that the visitor sent.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// The visitors who follow logs. Clones share the counts.
#[derive(Clone)]
pub(crate) struct Visitors {
    of_address: PeerQuota,
    all: Arc<Semaphore>,
}

/// A visitor's permission to follow a log, until it is dropped.
pub(crate) struct StreamSlot {
    _total: OwnedSemaphorePermit,
    _address: Option<PeerSlot>,
}

impl Visitors {
    pub(crate) fn new(settings: &Pages) -> Self {
        Self {
            of_address: PeerQuota::new(settings.max_streams_per_address),
            all: Arc::new(Semaphore::new((settings.max_connections / 2).max(1))),
        }
    }

    /// Acquires a slot for a request. `None` when its address or all together have reached their limit.
    pub(crate) fn stream_slot(&self, headers: &HeaderMap) -> Option<StreamSlot> {
        let address = match visitor(headers) {
            None => None,
            Some(address) => Some(self.of_address.acquire(address)?),
        };
        let total = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some(StreamSlot {
            _total: total,
            _address: address,
        })
    }
}

/// Returns the visitor's address: the last one in the header, which Caddy added. `None` for a program on this host.
pub(crate) fn visitor(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all(FORWARDED_FOR).iter().next_back()?;
    last.to_str().ok()?.rsplit(',').next()?.trim().parse().ok()
}
