//! What `preview logs` shows: the manager's own lines, then the journal of the app's services.

use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use innkeeper_facilities::Console;
use innkeeper_model::api::ExecRequest;
use innkeeper_model::{DesiredState, Event, EventKind, GuestName};
use innkeeper_store::{EventFilter, Store};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Interval;

use crate::PreviewError;
use crate::previews::Inner;

/// How many lines of the manager's own are kept for the log.
const NOTES: usize = 200;

/// How often a log that is followed looks whether its preview is still there.
const LOOK: Duration = Duration::from_secs(1);

/// How many events are read for each line that is wanted: the steps of the guest's operations are among them. If
/// that is too few, the log is shorter.
const EVENTS_FOR_A_NOTE: usize = 10;

/// How long the guest may take to print the end of its journal.
const JOURNAL_TIMEOUT: Duration = Duration::from_secs(20);

/// How many bytes of output count as a line when it does not end: journald splits longer ones (LineMax).
const LONGEST_LINE: usize = 48 * 1024;

impl Inner {
    /// Adds a line to the preview's log.
    pub(crate) fn note(&self, slug: &GuestName, text: impl Into<String>) {
        self.engine.journal().note(slug, text);
    }

    /// The last lines of the manager's own.
    pub(crate) async fn last_notes(
        &self,
        slug: &GuestName,
        lines: usize,
    ) -> Result<Vec<String>, PreviewError> {
        let filter = EventFilter {
            guest: Some(slug.clone()),
            limit: lines.saturating_mul(EVENTS_FOR_A_NOTE),
            newest: true,
            ..EventFilter::default()
        };
        let events = self.store.events(filter).await?;
        let notes: Vec<_> = events.iter().filter_map(line).collect();
        Ok(notes[notes.len().saturating_sub(lines)..].to_vec())
    }

    /// The log of a preview, and with `follow` what comes after it.
    pub(crate) async fn console(
        &self,
        slug: &GuestName,
        lines: usize,
        follow: bool,
    ) -> Result<Console, PreviewError> {
        let preview = self.preview(slug).await?;
        // Listening before reading, so that nothing is missed in between.
        let news = self.engine.journal().subscribe();
        let notes = self.last_notes(slug, lines.min(NOTES)).await?;
        let notes = stream::iter(notes.into_iter().map(|note| Ok(bytes(&note))));
        let meta = preview.live_meta.or(preview.meta);
        let journal = match meta {
            None => None,
            Some(meta) => {
                let mut command = vec!["journalctl".to_owned(), "--no-pager".to_owned()];
                command.extend(["-n".to_owned(), lines.to_string()]);
                for service in std::iter::once(&meta.setup_service).chain(&meta.app_services) {
                    command.extend(["-u".to_owned(), service.to_string()]);
                }
                command.extend(follow.then(|| "-f".to_owned()));
                let request = ExecRequest {
                    command,
                    tty: false,
                    size: None,
                    environment: Vec::new(),
                    user: None,
                    detached: false,
                };
                self.engine.exec(slug, &request).await.ok()
            }
        };
        let journal: Console = match journal {
            // A guest that does not run has no journal, but its console shows why it ended.
            None => match self.engine.console(slug, lines, false).await {
                Ok(console) => console,
                Err(_) => Box::pin(stream::empty()),
            },
            Some(session) => Box::pin(stream::unfold(
                (session, vec![0; 8192]),
                |(mut session, mut piece)| async move {
                    use tokio::io::AsyncReadExt as _;
                    let read = session.stdout.read(&mut piece).await;
                    match read {
                        Ok(0) => None,
                        Ok(length) => Some((Ok(piece[..length].to_vec()), (session, piece))),
                        Err(error) => Some((Err(error), (session, piece))),
                    }
                },
            )),
        };
        if !follow {
            // The guest's own journalctl wrote this: it may be anything, and need not end.
            let journal =
                first_lines(journal, lines).take_until(tokio::time::sleep(JOURNAL_TIMEOUT));
            return Ok(Box::pin(notes.chain(journal)));
        }
        let later = Later {
            store: self.store.clone(),
            slug: slug.clone(),
            news,
            look: tokio::time::interval(LOOK),
        };
        let later = stream::unfold(later, |mut later| async move {
            later.next().await.map(|line| (Ok(bytes(&line)), later))
        });
        Ok(Box::pin(notes.chain(stream::select(journal, later))))
    }
}

/// The manager's lines from now on, until the preview is removed or its guest is to be stopped.
struct Later {
    store: Store,
    slug: GuestName,
    news: Receiver<Event>,
    look: Interval,
}

impl Later {
    async fn next(&mut self) -> Option<String> {
        loop {
            tokio::select! {
                event = self.news.recv() => match event {
                    Ok(event) if event.guest.as_ref() == Some(&self.slug) => {
                        if let Some(line) = line(&event) {
                            return Some(line);
                        }
                    }
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                },
                // A preview's last event comes before its record goes.
                _ = self.look.tick() => if self.is_over().await {
                    return None;
                },
            }
        }
    }

    async fn is_over(&self) -> bool {
        let guest = self.store.guest(&self.slug).await;
        matches!(self.store.preview(&self.slug).await, Ok(None))
            || guest.is_ok_and(|guest| {
                guest.is_some_and(|guest| guest.desired == DesiredState::Stopped)
            })
    }
}

/// The first lines of a stream, which is dropped after them.
fn first_lines(log: Console, lines: usize) -> impl Stream<Item = <Console as Stream>::Item> {
    let bytes = lines.saturating_mul(LONGEST_LINE);
    stream::unfold((log, lines, bytes), |(mut log, lines, bytes)| async move {
        if lines == 0 || bytes == 0 {
            return None;
        }
        let mut piece = match log.next().await? {
            Ok(piece) => piece,
            Err(error) => return Some((Err(error), (log, 0, 0))),
        };
        piece.truncate(bytes);
        let mut ends = (1..)
            .zip(&piece)
            .filter(|(_, byte)| **byte == b'\n')
            .map(|(end, _)| end);
        let last = ends.nth(lines - 1);
        let lines = match last {
            Some(end) => {
                piece.truncate(end);
                0
            }
            None => lines - piece.iter().filter(|byte| **byte == b'\n').count(),
        };
        let bytes = bytes - piece.len();
        Some((Ok(piece), (log, lines, bytes)))
    })
}

/// What an event says in the log.
fn line(event: &Event) -> Option<String> {
    match &event.kind {
        EventKind::Note { text } => Some(text.clone()),
        EventKind::OomKilled { kills, memory } => Some(format!(
            "The kernel killed processes of the guest ({kills}), which had used all of its {memory} of memory."
        )),
        EventKind::Exited { status } => Some(format!("The guest ended with status {status}.")),
        _ => None,
    }
}

fn bytes(line: &str) -> Vec<u8> {
    format!("{line}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shown(lines: usize, piece: &'static [u8]) -> Vec<u8> {
        let endless = stream::repeat_with(move || Ok(piece.to_vec()));
        let pieces = first_lines(Box::pin(endless), lines);
        let pieces: Vec<_> = pieces.map(|piece| piece.expect("a piece")).collect().await;
        pieces.concat()
    }

    #[tokio::test]
    async fn a_guest_that_writes_for_ever_is_cut_off() {
        assert_eq!(shown(3, b"one\ntwo\nthr").await, b"one\ntwo\nthrone\n");
        assert_eq!(shown(2, b"y\n").await, b"y\ny\n");
        assert_eq!(shown(2, &[b'x'; 1000]).await.len(), 2 * LONGEST_LINE);
        assert_eq!(shown(0, b"y\n").await, b"");
    }
}
