//! Limits of live logs: of each visitor's address, and of all together.

use std::net::IpAddr;
use std::sync::Arc;

use innkeeper_service::{Pages, PeerQuota, PeerSlot};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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
            all: Arc::new(Semaphore::new(settings.share())),
        }
    }

    /// Acquires a slot for a visitor. `None` when its address or all together have reached their limit.
    pub(crate) fn stream_slot(&self, visitor: Option<IpAddr>) -> Option<StreamSlot> {
        let address = match visitor {
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
