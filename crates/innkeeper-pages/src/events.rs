//! Live changes of a page, as server-sent events (WHATWG HTML, section 9.2).
//!
//! | event | data | meaning |
//! | --- | --- | --- |
//! | `status` | HTML | replaces the page's part above the log |
//! | `lines` | JSON: `[[number, time, text], …]` | lines that follow the ones shown |
//! | `over` | `over` | the app answers, or the preview is gone: load the URL again |
//!
//! An event's id is the number of the last line, so a browser that connects again continues there.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::request::Parts;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::{Stream, StreamExt as _, stream};
use innkeeper_model::preview::PreviewState;
use innkeeper_model::preview::page::PageStatus;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::page;
use crate::status::Latest;
use crate::visitors::StreamSlot;

/// Interval of comments that show both sides whether the connection is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Maximum lifetime of a stream. The browser connects again.
const LIFETIME: Duration = Duration::from_secs(30 * 60);

/// Delay before a browser connects again, in milliseconds.
const RETRY: Duration = Duration::from_secs(2);

/// The part of the page that a browser shows already.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Start {
    /// The last line's number.
    line: Option<u64>,
}

impl Start {
    /// Reads it from a request: the last event that arrived, or else the last line of the page.
    pub(crate) fn of(request: &Parts) -> Self {
        let last = request.headers.get("last-event-id");
        let last = last.and_then(|id| id.to_str().ok()?.parse().ok());
        let query = request.uri.query().unwrap_or_default();
        let after = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("after=")?.parse().ok());
        Self {
            line: last.or(after),
        }
    }
}

/// State of one stream.
struct Follower {
    watched: watch::Receiver<Latest>,
    closing: watch::Receiver<bool>,
    until: Instant,
    /// HTML of the last status that was sent.
    sent: Option<String>,
    line: Option<u64>,
    is_over: bool,
    _slot: StreamSlot,
}

/// Returns the stream of a preview's changes.
pub(crate) fn response(
    start: Start,
    mut watched: watch::Receiver<Latest>,
    closing: watch::Receiver<bool>,
    slot: StreamSlot,
) -> Response {
    watched.mark_changed();
    let follower = Follower {
        watched,
        closing,
        until: Instant::now() + LIFETIME,
        sent: None,
        line: start.line,
        is_over: false,
        _slot: slot,
    };
    let first = stream::iter([Ok(Event::default().retry(RETRY).comment("innkeeper"))]);
    let events = first.chain(follow(follower));
    Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response()
}

fn follow(follower: Follower) -> impl Stream<Item = Result<Event, Infallible>> {
    let batches = stream::unfold(follower, |mut follower| async move {
        let events = follower.next().await?;
        Some((events, follower))
    });
    batches.flat_map(|events| stream::iter(events.into_iter().map(Ok)))
}

/// Reports whether the app answers, as far as the daemon knows.
fn is_served(status: &PageStatus) -> bool {
    status.state == PreviewState::Live && status.interruption.is_none()
}

impl Follower {
    /// Returns the next events. `None` ends the stream.
    async fn next(&mut self) -> Option<Vec<Event>> {
        loop {
            if self.is_over {
                return None;
            }
            tokio::select! {
                changed = self.watched.changed() => changed.ok()?,
                closing = self.closing.wait_for(|closing| *closing) => {
                    drop(closing);
                    return None;
                }
                () = tokio::time::sleep_until(self.until) => return None,
            }
            let latest = self.watched.borrow_and_update().clone();
            let events = self.events(latest);
            if !events.is_empty() {
                return Some(events);
            }
        }
    }

    /// Returns the events for a status.
    fn events(&mut self, latest: Latest) -> Vec<Event> {
        let Some(status) = latest.filter(|status| !is_served(status)) else {
            self.is_over = true;
            // Browsers ignore an event without data, which an empty text would be.
            return vec![Event::default().event("over").data("over")];
        };
        let mut events = Vec::new();
        events.extend(self.lines(&status));
        let html = page::status(&status).into_string();
        if self.sent.as_ref() != Some(&html) {
            events.push(Event::default().event("status").data(html.clone()));
            self.sent = Some(html);
        }
        events
    }

    /// Returns the event with the lines that follow the ones sent before.
    fn lines(&mut self, status: &PageStatus) -> Option<Event> {
        let log = &status.details.as_ref()?.log;
        let last = log.last()?.number;
        // After a restart of the numbering, all lines are new.
        let after = self.line.filter(|line| *line <= last);
        let new = log
            .iter()
            .filter(|line| after.is_none_or(|after| line.number > after));
        let new: Vec<_> = new
            .map(|line| (line.number, page::time_of_day(line.at), &line.text))
            .collect();
        if new.is_empty() {
            return None;
        }
        self.line = Some(last);
        let event = Event::default().event("lines").id(last.to_string());
        // Numbers and texts can always be serialized.
        event.json_data(new).ok()
    }
}
