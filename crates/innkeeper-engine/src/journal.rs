//! Events: stored, and published to subscribers.

use std::sync::Arc;

use innkeeper_facilities::ProgressSink;
use innkeeper_model::{BuildProgress, Event, EventKind, GuestName, OperationId};
use innkeeper_store::Store;
use tokio::sync::broadcast;
use tracing::{debug, warn};

/// Number of events that a slow subscriber may lag behind before it misses some.
const BACKLOG: usize = 1024;

/// Stores events and publishes them. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    store: Store,
    live: broadcast::Sender<Event>,
}

/// The operation and the guest that an event belongs to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subject {
    pub(crate) operation: Option<OperationId>,
    pub(crate) guest: Option<GuestName>,
}

impl Subject {
    pub(crate) fn guest(name: &GuestName) -> Self {
        Self {
            operation: None,
            guest: Some(name.clone()),
        }
    }
}

impl Journal {
    pub(crate) fn new(store: Store) -> Self {
        Self {
            store,
            live: broadcast::Sender::new(BACKLOG),
        }
    }

    /// Subscribes to the events from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.live.subscribe()
    }

    /// Stores an event, then publishes it. Returns at once; the store keeps the order. A failure is only logged: a full
    /// disk must not block the removal of a guest.
    pub(crate) fn record(&self, subject: &Subject, kind: EventKind) {
        debug!(operation = ?subject.operation, guest = ?subject.guest, event = ?kind);
        let journal = self.clone();
        let stored = move |event| match event {
            Ok(event) => journal.publish(event),
            Err(error) => warn!(%error, "cannot record an event"),
        };
        self.store
            .append_event(subject.operation, subject.guest.as_ref(), kind, stored);
    }

    /// Stores and publishes a note about a guest, or about a preview before it has a guest.
    pub fn note(&self, guest: &GuestName, text: impl Into<String>) {
        let text = text.into();
        self.record(&Subject::guest(guest), EventKind::Note { text });
    }

    /// Stores and publishes that an attempt to bring a preview's commit up begins.
    pub fn attempt(&self, guest: &GuestName, number: u64, commit: &str) {
        let commit = commit.to_owned();
        self.record(
            &Subject::guest(guest),
            EventKind::Attempt { number, commit },
        );
    }

    /// Publishes the progress of a preview's build.
    pub fn build_progress(&self, guest: &GuestName, progress: BuildProgress) {
        self.progress(&Subject::guest(guest), progress);
    }

    /// Returns the sink for a build's progress.
    pub(crate) fn progress_sink(&self, subject: &Subject) -> ProgressSink {
        let (journal, subject) = (self.clone(), subject.clone());
        Arc::new(move |progress| journal.progress(&subject, progress))
    }

    /// Publishes a build's progress in order with other events. The store does not keep it.
    fn progress(&self, subject: &Subject, progress: BuildProgress) {
        self.record(subject, EventKind::Progress { progress });
    }

    fn publish(&self, event: Event) {
        // Fails only without subscribers.
        drop(self.live.send(event));
    }
}
