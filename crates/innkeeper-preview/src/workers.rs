//! The workers of all previews: at most one for each, started by its first wakeup.

use std::collections::HashMap;
use std::sync::Arc;

use innkeeper_model::GuestName;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

/// Counts of a worker's wakeups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wakeup {
    /// Number of all wakeups.
    total: u64,
    /// Number of periodic checks.
    pub(crate) checks: u64,
    /// Number of commands of users on the host.
    pub(crate) commands: u64,
}

/// Reason for a wakeup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WakeReason {
    /// The record or its deliveries may have changed.
    Change,
    /// Periodic check: a settled preview is inspected.
    Check,
    /// A user on the host gave a command. Work in hand is canceled, and no delay applies.
    Command,
}

/// A worker that is to be started.
#[derive(Debug)]
pub(crate) struct NewWorker {
    /// The preview's slug.
    pub(crate) slug: GuestName,
    /// The worker's wakeups. The first one is unseen.
    pub(crate) wakeups: watch::Receiver<Wakeup>,
}

/// Handle to all workers. Clones share the same workers.
#[derive(Clone, Debug)]
pub(crate) struct Workers {
    running: Arc<Mutex<HashMap<GuestName, watch::Sender<Wakeup>>>>,
    started: mpsc::UnboundedSender<NewWorker>,
}

impl Workers {
    /// Returns a handle, and the queue of workers to start.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<NewWorker>) {
        let (started, to_start) = mpsc::unbounded_channel();
        let workers = Self {
            running: Arc::default(),
            started,
        };
        (workers, to_start)
    }

    /// Wakes a preview's worker, and starts one if none runs.
    pub(crate) fn wake(&self, slug: &GuestName, reason: WakeReason) {
        let mut running = self.running.lock();
        let count = |wakeup: &mut Wakeup| {
            wakeup.total += 1;
            wakeup.checks += u64::from(reason == WakeReason::Check);
            wakeup.commands += u64::from(reason == WakeReason::Command);
        };
        // A worker that ended without leaving, by a panic for example, is replaced: otherwise nobody could remove its
        // preview.
        if let Some(worker) = running.get(slug).filter(|worker| !worker.is_closed()) {
            worker.send_modify(count);
            return;
        }
        let (worker, mut wakeups) = watch::channel(Wakeup::default());
        worker.send_modify(count);
        wakeups.mark_changed();
        running.insert(slug.clone(), worker);
        let slug = slug.clone();
        // An error means that the daemon is stopping.
        drop(self.started.send(NewWorker { slug, wakeups }));
    }

    /// Deregisters a worker that has nothing left to do. Returns `false` if it was woken since its last look.
    pub(crate) fn leave(&self, slug: &GuestName, wakeups: &watch::Receiver<Wakeup>) -> bool {
        let mut running = self.running.lock();
        let is_idle = !wakeups.has_changed().unwrap_or(false);
        if is_idle {
            running.remove(slug);
        }
        is_idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slug() -> GuestName {
        GuestName::parse("web-7").expect("a name")
    }

    #[test]
    fn worker_is_started_once_and_replaced_after_a_panic() {
        let (workers, mut to_start) = Workers::new();
        workers.wake(&slug(), WakeReason::Change);
        workers.wake(&slug(), WakeReason::Command);
        let worker = to_start.try_recv().expect("the first");
        assert_eq!(worker.wakeups.borrow().commands, 1);
        assert!(to_start.try_recv().is_err());
        drop(worker);
        workers.wake(&slug(), WakeReason::Change);
        assert!(to_start.try_recv().is_ok());
    }

    #[test]
    fn worker_that_was_woken_does_not_leave() {
        let (workers, mut to_start) = Workers::new();
        workers.wake(&slug(), WakeReason::Change);
        let mut worker = to_start.try_recv().expect("the first");
        assert!(!workers.leave(&worker.slug, &worker.wakeups));
        worker.wakeups.mark_unchanged();
        assert!(workers.leave(&worker.slug, &worker.wakeups));
        workers.wake(&slug(), WakeReason::Change);
        assert!(to_start.try_recv().is_ok());
    }
}
