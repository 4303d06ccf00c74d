//! A preview's log lines in the journal, and the crash probe around its steps.

use std::ops::Range;
use std::sync::Arc;

use innkeeper_model::preview::CommitSha;
use innkeeper_model::preview::log::{LogFilter, LogLine};
use innkeeper_model::{BuildProgress, Code, Event, EventKind, GuestName};
use innkeeper_store::{EventFilter, Store};
use jiff::Timestamp;
use tokio::sync::broadcast;

use crate::PreviewError;

/// Number of events that are read for each wanted line: the steps of the guest's operations are among them. If that
/// is too few, the log is shorter.
const EVENTS_PER_NOTE: usize = 10;

/// Number of events that are searched for an attempt or a time.
const EVENTS_PER_WINDOW: usize = 20_000;

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

    /// Separates the attempts to bring commits up in the preview's log.
    pub(crate) fn attempt(&self, slug: &GuestName, number: u64, commit: &CommitSha) {
        self.events.attempt(slug, number, commit.as_str());
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

    /// Returns the last lines that a filter selects, and the times between which the lines of other sources belong to them.
    ///
    /// # Errors
    /// No attempt has the filter's number, or the store cannot be read.
    pub(crate) async fn window(
        &self,
        slug: &GuestName,
        lines: usize,
        filter: &LogFilter,
    ) -> Result<Window, PreviewError> {
        let limit = match (filter.attempt, filter.since) {
            (None, None) => lines.saturating_mul(EVENTS_PER_NOTE),
            _ => EVENTS_PER_WINDOW,
        };
        let events = EventFilter {
            guest: Some(slug.clone()),
            limit,
            newest: true,
            ..EventFilter::default()
        };
        let mut events = self.store.events(events).await?;
        let (mut since, mut until) = (filter.since, None);
        if let Some(number) = filter.attempt {
            let attempt = attempt(slug, &events, number)?;
            let begin = events[attempt.start].time;
            since = Some(since.map_or(begin, |since| since.max(begin)));
            until = events.get(attempt.end).map(|next| next.time);
            events = events.drain(attempt).collect();
        }
        events.retain(|event| since.is_none_or(|since| event.time >= since));
        let shown: Vec<_> = events.iter().filter_map(own_line).collect();
        Ok(Window {
            lines: shown[shown.len().saturating_sub(lines)..].to_vec(),
            since,
            until,
        })
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

/// Lines of a preview's log, and the times between which they are.
pub(crate) struct Window {
    pub(crate) lines: Vec<LogLine>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
}

/// Finds the events of an attempt: the last one with this number, since a slug may have been used before.
fn attempt(slug: &GuestName, events: &[Event], number: u64) -> Result<Range<usize>, PreviewError> {
    let number_of = |event: &Event| match &event.kind {
        EventKind::Attempt { number, .. } => Some(*number),
        _ => None,
    };
    let start = events
        .iter()
        .rposition(|event| number_of(event) == Some(number));
    let Some(start) = start else {
        let newest = events.iter().rev().find_map(number_of);
        let remedy = match newest {
            Some(newest) => format!("The newest attempt has the number {newest}."),
            None => "The log has no attempts yet.".to_owned(),
        };
        let text = format!("the log of preview '{slug}' has no attempt {number}");
        return Err(PreviewError::new(Code::InvalidRequest, text, remedy));
    };
    let mut after = events.iter().skip(start + 1);
    let length = after.position(|event| number_of(event).is_some());
    Ok(start..length.map_or(events.len(), |length| start + 1 + length))
}

/// Returns an event as a line of `preview logs`.
pub(crate) fn own_line(event: &Event) -> Option<LogLine> {
    match &event.kind {
        EventKind::Attempt { number, commit } => Some(LogLine {
            attempt: Some(*number),
            ..LogLine::own(
                event.time,
                format!("Attempt {number} of {commit:.7} begins."),
            )
        }),
        _ => Some(LogLine::own(event.time, line(event)?)),
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
