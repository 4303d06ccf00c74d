//! One lock for each guest, and one drive for each operation.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use innkeeper_model::{GuestName, OperationId};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// Locks by guest name. What is done to a guest is done under its lock; guests do not wait for each other.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    locks: Mutex<HashMap<GuestName, Weak<AsyncMutex<()>>>>,
}

impl Locks {
    /// Waits for the guest's lock. The guest need not exist.
    pub(crate) async fn lock(&self, guest: &GuestName) -> OwnedMutexGuard<()> {
        self.of(guest).lock_owned().await
    }

    fn of(&self, guest: &GuestName) -> Arc<AsyncMutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = locks.get(guest).and_then(Weak::upgrade) {
            return lock;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::default();
        locks.insert(guest.clone(), Arc::downgrade(&lock));
        lock
    }
}

/// The operations that are being driven.
#[derive(Debug, Default)]
pub(crate) struct Driven {
    operations: Mutex<HashSet<OperationId>>,
}

impl Driven {
    /// Says whether the operation is not driven yet; from now on it is.
    pub(crate) fn begin(&self, operation: OperationId) -> bool {
        self.operations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(operation)
    }

    /// The operation has ended.
    pub(crate) fn end(&self, operation: OperationId) {
        self.operations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&operation);
    }
}
