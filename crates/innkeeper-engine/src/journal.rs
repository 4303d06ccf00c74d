//! Events: stored, and told to whoever listens.

use std::sync::Arc;
use std::time::Instant;

use innkeeper_host::facilities::ProgressSink;
use innkeeper_model::{BuildProgress, Event, EventKind, GuestName, OperationId, Verb};
use innkeeper_store::Store;
use tokio::sync::broadcast;
use tracing::{debug, warn};

use crate::EngineError;
use crate::engine::Inner;
use crate::probe::Edge;

/// How many events a slow listener may be behind before it is told that it missed some.
const BACKLOG: usize = 1024;

/// Where events go.
#[derive(Clone)]
pub struct Journal {
    store: Store,
    live: broadcast::Sender<Event>,
}

impl Journal {
    pub(crate) fn new(store: Store) -> Self {
        Self {
            store,
            live: broadcast::Sender::new(BACKLOG),
        }
    }

    /// What happens from now on.
    #[must_use]
    pub fn listen(&self) -> broadcast::Receiver<Event> {
        self.live.subscribe()
    }

    /// Stores an event and tells it. Nobody waits for that: the store keeps the order. A full disk must not keep a
    /// guest from being removed, so a failure to store is logged and no more.
    pub(crate) fn record(&self, about: &About, kind: EventKind) {
        debug!(operation = ?about.operation, guest = ?about.guest, event = ?kind);
        let journal = self.clone();
        let told = move |event| match event {
            Ok(event) => journal.tell(event),
            Err(error) => warn!(%error, "an event was not recorded"),
        };
        self.store
            .append_event(about.operation, about.guest.as_ref(), kind, told);
    }

    /// Stores a line about a guest, or about a preview that has no guest yet, and tells it.
    pub fn note(&self, guest: &GuestName, text: impl Into<String>) {
        let about = About {
            operation: None,
            guest: Some(guest.clone()),
        };
        let text = text.into();
        self.record(&about, EventKind::Note { text });
    }

    /// Tells how a preview's build goes, without storing it.
    pub fn build_progress(&self, guest: &GuestName, progress: BuildProgress) {
        let about = About {
            operation: None,
            guest: Some(guest.clone()),
        };
        self.progress(&about, progress);
    }

    /// Where the progress of a build goes.
    pub(crate) fn sink(&self, about: &About) -> ProgressSink {
        let (journal, about) = (self.clone(), about.clone());
        Arc::new(move |progress| journal.progress(&about, progress))
    }

    /// Tells how a build goes. The store passes that on, in its turn, and does not keep it.
    fn progress(&self, about: &About, progress: BuildProgress) {
        self.record(about, EventKind::Progress { progress });
    }

    fn tell(&self, event: Event) {
        // An error means that nobody listens.
        drop(self.live.send(event));
    }
}

impl Inner {
    /// Does a step between two points of the probe, and records how it went.
    pub(crate) async fn timed(
        &self,
        verb: Verb,
        about: &About,
        step: &'static str,
        work: impl Future<Output = Result<(), EngineError>>,
    ) -> Result<(), EngineError> {
        let name = || step.to_owned();
        let journal = &self.journal;
        journal.record(about, EventKind::StepStarted { step: name() });
        self.probe(verb, step, Edge::Before);
        let started = Instant::now();
        let result = work.await;
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.probe(verb, step, Edge::After);
        let kind = match &result {
            Ok(()) => EventKind::StepDone {
                step: name(),
                micros,
            },
            Err(error) => EventKind::StepFailed {
                step: name(),
                failure: error.into(),
            },
        };
        journal.record(about, kind);
        result
    }
}

/// What an event is about.
#[derive(Clone, Debug, Default)]
pub(crate) struct About {
    /// The operation.
    pub(crate) operation: Option<OperationId>,
    /// The guest.
    pub(crate) guest: Option<GuestName>,
}
