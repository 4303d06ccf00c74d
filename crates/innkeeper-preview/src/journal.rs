//! A preview's log lines in the journal, and the crash probe around its steps.

use std::sync::Arc;

use innkeeper_model::{BuildProgress, Event, EventKind, GuestName};
use innkeeper_store::{EventFilter, Store};
use tokio::sync::broadcast;

use crate::PreviewError;

/// Number of events that are read for each wanted line: the steps of the guest's operations are among them. If that
/// is too few, the log is shorter.
const EVENTS_PER_NOTE: usize = 10;

/// Called before and after every step of a preview's life with the point's name, such as
/// `preview:ensure-database:before`. The crash tests discover the steps with it.
pub type Probe = Arc<dyn Fn(&str) + Send + Sync>;

/// Writes log lines, and runs steps between their probes.
#[derive(Clone)]
pub(crate) struct Journal {
    events: innkeeper_engine::Journal,
    store: Store,
    probe: Option<Probe>,
}

impl Journal {
    pub(crate) fn new(
        events: innkeeper_engine::Journal,
        store: Store,
        probe: Option<Probe>,
    ) -> Self {
        Self {
            events,
            store,
            probe,
        }
    }

    /// Adds a line to the preview's log.
    pub(crate) fn note(&self, slug: &GuestName, text: impl Into<String>) {
        self.events.note(slug, text);
    }

    /// Publishes the progress of a preview's build, without storing it.
    pub(crate) fn build_progress(&self, slug: &GuestName, progress: BuildProgress) {
        self.events.build_progress(slug, progress);
    }

    /// Subscribes to all events from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Returns the last lines of the preview's log, without the journals of its services.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn last_notes(
        &self,
        slug: &GuestName,
        lines: usize,
    ) -> Result<Vec<String>, PreviewError> {
        let filter = EventFilter {
            guest: Some(slug.clone()),
            limit: lines.saturating_mul(EVENTS_PER_NOTE),
            newest: true,
            ..EventFilter::default()
        };
        let events = self.store.events(filter).await?;
        let notes: Vec<_> = events.iter().filter_map(line).collect();
        Ok(notes[notes.len().saturating_sub(lines)..].to_vec())
    }

    /// Runs a step between its two probes.
    pub(crate) async fn step<T, E>(
        &self,
        name: &str,
        step: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.reach(name, "before");
        let result = step.await;
        self.reach(name, "after");
        result
    }

    fn reach(&self, step: &str, edge: &str) {
        if let Some(probe) = &self.probe {
            probe(&format!("preview:{step}:{edge}"));
        }
    }
}

/// Returns an event as a line of the log. Most events have none.
pub(crate) fn line(event: &Event) -> Option<String> {
    match &event.kind {
        EventKind::Note { text } => Some(text.clone()),
        EventKind::OomKilled { kills, memory } => Some(format!(
            "The kernel killed processes of the guest ({kills}), which had used all of its {memory} of memory."
        )),
        EventKind::Exited { status } => Some(format!("The guest ended with status {status}.")),
        _ => None,
    }
}
