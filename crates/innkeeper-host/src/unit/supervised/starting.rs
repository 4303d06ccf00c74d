//! Guests that are being started.

use std::collections::HashSet;
use std::sync::Arc;

use innkeeper_model::GuestName;
use parking_lot::Mutex;

/// Guests that are being started and may have no process yet.
#[derive(Debug, Default)]
pub(super) struct Starting(Mutex<HashSet<GuestName>>);

impl Starting {
    pub(super) fn has(&self, guest: &GuestName) -> bool {
        self.0.lock().contains(guest)
    }

    pub(super) fn mark(self: &Arc<Self>, guest: &GuestName) -> Mark {
        self.0.lock().insert(guest.clone());
        Mark {
            starting: Arc::clone(self),
            guest: guest.clone(),
        }
    }
}

/// Marks a guest as being started until it is dropped.
#[derive(Debug)]
pub(super) struct Mark {
    starting: Arc<Starting>,
    guest: GuestName,
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.starting.0.lock().remove(&self.guest);
    }
}
