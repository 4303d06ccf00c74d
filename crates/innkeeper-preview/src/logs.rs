//! Output of `preview logs`: the daemon's own lines, then the journal of the app's services.

use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use innkeeper_engine::Engine;
use innkeeper_facilities::Console;
use innkeeper_model::api::ExecRequest;
use innkeeper_model::preview::Meta;
use innkeeper_model::{DesiredState, Event, GuestName};
use innkeeper_store::Store;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Interval;

use crate::PreviewError;
use crate::journal::{Journal, line};
use crate::records;

/// Upper bound of the daemon's own lines.
const NOTES: usize = 200;

/// Interval at which a followed log checks that its preview still exists.
const POLL: Duration = Duration::from_secs(1);

/// Timeout for the guest to print the end of its journal.
const JOURNAL_TIMEOUT: Duration = Duration::from_secs(20);

/// Number of bytes that count as a line when it does not end: journald splits longer ones (LineMax).
const LONGEST_LINE: usize = 48 * 1024;

/// Logs of previews.
#[derive(Clone)]
pub(crate) struct Logs {
    engine: Engine,
    store: Store,
    journal: Journal,
}

impl Logs {
    pub(crate) fn new(engine: Engine, store: Store, journal: Journal) -> Self {
        Self {
            engine,
            store,
            journal,
        }
    }

    /// Returns the log of a preview. With `follow`, later lines come after it.
    ///
    /// # Errors
    /// [`PreviewError::NotFound`], or the store cannot be read.
    pub(crate) async fn open(
        &self,
        slug: &GuestName,
        lines: usize,
        follow: bool,
    ) -> Result<Console, PreviewError> {
        let preview = records::require(&self.store, slug).await?;
        // Subscribed before the read, so that no line is lost in between.
        let news = self.journal.subscribe();
        let notes = self.journal.last_notes(slug, lines.min(NOTES)).await?;
        let notes = stream::iter(notes.into_iter().map(|note| Ok(bytes(&note))));
        let journal = match preview.live_meta.or(preview.meta) {
            None => None,
            Some(meta) => {
                let request = journal_request(&meta, lines, follow);
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
            // The guest's own journalctl writes this: it may print anything, for ever.
            let journal =
                first_lines(journal, lines).take_until(tokio::time::sleep(JOURNAL_TIMEOUT));
            return Ok(Box::pin(notes.chain(journal)));
        }
        let later = Later {
            store: self.store.clone(),
            slug: slug.clone(),
            news,
            poll: tokio::time::interval(POLL),
        };
        let later = stream::unfold(later, |mut later| async move {
            later.next().await.map(|line| (Ok(bytes(&line)), later))
        });
        Ok(Box::pin(notes.chain(stream::select(journal, later))))
    }
}

/// Returns the request for the journal of the app's services.
fn journal_request(meta: &Meta, lines: usize, follow: bool) -> ExecRequest {
    let mut command = vec!["journalctl".to_owned(), "--no-pager".to_owned()];
    command.extend(["-n".to_owned(), lines.to_string()]);
    for service in std::iter::once(&meta.setup_service).chain(&meta.app_services) {
        command.extend(["-u".to_owned(), service.to_string()]);
    }
    command.extend(follow.then(|| "-f".to_owned()));
    ExecRequest {
        command,
        tty: false,
        size: None,
        environment: Vec::new(),
        user: None,
        detached: false,
    }
}

/// The daemon's lines from now on, until the preview is removed or its guest is to be stopped.
struct Later {
    store: Store,
    slug: GuestName,
    news: Receiver<Event>,
    poll: Interval,
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
                _ = self.poll.tick() => if self.is_over().await {
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

/// Returns the first lines of a stream, which is dropped after them.
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
    async fn endless_output_is_cut_off() {
        assert_eq!(shown(3, b"one\ntwo\nthr").await, b"one\ntwo\nthrone\n");
        assert_eq!(shown(2, b"y\n").await, b"y\ny\n");
        assert_eq!(shown(2, &[b'x'; 1000]).await.len(), 2 * LONGEST_LINE);
        assert_eq!(shown(0, b"y\n").await, b"");
    }
}
