//! One async lock for each key.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// Serializes work by key, such as a guest's name. Work on different keys runs concurrently. A key needs no
/// registration, and its lock is freed with its last holder.
#[derive(Debug)]
pub struct KeyedLocks<K> {
    locks: Mutex<HashMap<K, Weak<AsyncMutex<()>>>>,
}

impl<K> Default for KeyedLocks<K> {
    fn default() -> Self {
        Self {
            locks: Mutex::default(),
        }
    }
}

impl<K: Eq + Hash + Clone> KeyedLocks<K> {
    /// Waits for the lock of a key. Waiters take turns in the order of their calls. Cancel-safe: a dropped call
    /// leaves the queue.
    pub async fn lock(&self, key: &K) -> OwnedMutexGuard<()> {
        self.get(key).lock_owned().await
    }

    /// Locks a key unless it is locked.
    pub fn try_lock(&self, key: &K) -> Option<OwnedMutexGuard<()>> {
        self.get(key).try_lock_owned().ok()
    }

    fn get(&self, key: &K) -> Arc<AsyncMutex<()>> {
        let mut locks = self.locks.lock();
        if let Some(lock) = locks.get(key).and_then(Weak::upgrade) {
            return lock;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::default();
        locks.insert(key.clone(), Arc::downgrade(&lock));
        lock
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn keys_exclude_themselves_and_free_their_locks() {
        let locks = KeyedLocks::default();
        let first = locks.lock(&1).now_or_never().expect("is free");
        assert!(locks.lock(&1).now_or_never().is_none());
        assert!(locks.lock(&2).now_or_never().is_some());
        drop(first);
        assert!(locks.lock(&1).now_or_never().is_some());
        drop(locks.lock(&3).now_or_never());
        assert_eq!(locks.locks.lock().len(), 1);
    }
}
