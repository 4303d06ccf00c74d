//! Output of `preview logs`: the daemon's own lines and those of the app's services, in the order of their times.

use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt as _};
use innkeeper_engine::Engine;
use innkeeper_facilities::Console;
use innkeeper_model::preview::log::{LogFilter, LogLine, OWN_SOURCE, merge};
use innkeeper_model::preview::{Meta, ServiceName};
use innkeeper_model::{Code, Event, GuestName};
use innkeeper_store::Store;
use jiff::Timestamp;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Interval;

use crate::PreviewError;
use crate::journal::{Journal, own_line};
use crate::masks::Masks;
use crate::records;
use crate::service_log::{Entry, From, ServiceLog};

/// Upper bound of the daemon's own lines.
const NOTES: usize = 1_000;

/// Interval at which a followed log checks that its preview still exists.
const POLL: Duration = Duration::from_secs(1);

/// Timeout for the guest to print the end of its console.
const CONSOLE_TIMEOUT: Duration = Duration::from_secs(20);

/// Number of bytes that count as a line when it does not end: journald splits longer ones (LineMax).
const LONGEST_LINE: usize = 48 * 1024;

/// The source of a guest's console.
const CONSOLE_SOURCE: &str = "console";

/// Logs of previews.
#[derive(Clone)]
pub(crate) struct Logs {
    engine: Engine,
    store: Store,
    journal: Journal,
    masks: Masks,
}

impl Logs {
    pub(crate) fn new(engine: Engine, store: Store, journal: Journal, masks: Masks) -> Self {
        Self {
            engine,
            store,
            journal,
            masks,
        }
    }

    /// Returns the last lines of a preview's log. With `follow`, later lines come after them.
    ///
    /// # Errors
    /// [`PreviewError::NotFound`], no attempt has the number of the filter, or the store cannot be read.
    pub(crate) async fn open(
        &self,
        slug: &GuestName,
        lines: usize,
        follow: bool,
        filter: LogFilter,
    ) -> Result<BoxStream<'static, LogLine>, PreviewError> {
        let log = self.open_unmasked(slug, lines, follow, filter).await?;
        let (masks, slug) = (self.masks.clone(), slug.clone());
        let masked = log.then(move |mut line| {
            let (masks, slug) = (masks.clone(), slug.clone());
            async move {
                // Looked up for each line: a secret may be new.
                line.text = masks.of(&slug).await.line(&line.text).into_owned();
                line
            }
        });
        Ok(masked.boxed())
    }

    async fn open_unmasked(
        &self,
        slug: &GuestName,
        lines: usize,
        follow: bool,
        filter: LogFilter,
    ) -> Result<BoxStream<'static, LogLine>, PreviewError> {
        let preview = records::require(&self.store, slug).await?;
        let meta = preview.live_meta.or(preview.meta);
        check_service(filter.service.as_deref())?;
        // Subscribed before the read, so that no line is lost in between.
        let news = self.journal.subscribe();
        let begun = Timestamp::now();
        let window = self.journal.window(slug, lines.min(NOTES), &filter).await?;
        let filter = LogFilter {
            since: window.since,
            ..filter
        };
        let wants_own = filter
            .service
            .as_deref()
            .is_none_or(|one| one == OWN_SOURCE);
        let own = if wants_own { window.lines } else { Vec::new() };
        let services = self.services_of(meta.as_ref(), &filter, window.until);
        let (app, from) = self.app_lines(slug, services.as_ref(), lines, begun).await;
        if let Some(service) = filter.service.as_deref().filter(|_| !wants_own) {
            require_source(slug, service, meta.as_ref(), &app)?;
        }
        let mut shown = merge(own, app);
        shown.drain(..shown.len().saturating_sub(lines));
        let shown = stream::iter(shown);
        if !follow || window.until.is_some() {
            return Ok(shown.boxed());
        }
        let later = Later {
            store: self.store.clone(),
            slug: slug.clone(),
            news,
            poll: tokio::time::interval(POLL),
        };
        let later = stream::unfold(later, async |mut later| {
            later.next().await.map(|line| (line, later))
        });
        let later = match wants_own {
            true => later.boxed(),
            // Only its end counts.
            false => later.filter(|_| std::future::ready(false)).boxed(),
        };
        let app = match services {
            Some(services) => self.follow(slug, services, from),
            None => stream::empty().boxed(),
        };
        Ok(shown.chain(stream::select(later, app)).boxed())
    }

    /// Returns the selection of the services' lines. `None` if the filter excludes them, or no service is known yet.
    fn services_of(
        &self,
        meta: Option<&Meta>,
        filter: &LogFilter,
        until: Option<Timestamp>,
    ) -> Option<ServiceLog> {
        let is_own = filter.service.as_deref() == Some(OWN_SOURCE);
        let meta = meta.filter(|_| !is_own)?;
        Some(ServiceLog::new(meta, filter, until))
    }

    /// Returns the last lines of the services, and the point from which later ones follow. A guest that does not run has no
    /// journal, but its console shows why it ended.
    async fn app_lines(
        &self,
        slug: &GuestName,
        services: Option<&ServiceLog>,
        lines: usize,
        begun: Timestamp,
    ) -> (Vec<LogLine>, From) {
        let Some(services) = services else {
            return (Vec::new(), From::Time(begun));
        };
        match services.last(&self.engine, slug, lines).await {
            Some(entries) => {
                let cursor = entries.iter().rev().find_map(|one| one.cursor.clone());
                let from = cursor.map_or(From::Time(begun), From::Cursor);
                let lines = entries.into_iter().map(|Entry { line, .. }| line);
                (lines.collect(), from)
            }
            None => {
                let console = match self.engine.console(slug, lines, false).await {
                    Ok(console) => console_lines(console, lines).await,
                    Err(_) => Vec::new(),
                };
                (console, From::Time(begun))
            }
        }
    }

    /// Returns the later lines of the services. Connects again after a restart of the guest.
    fn follow(
        &self,
        slug: &GuestName,
        services: ServiceLog,
        from: From,
    ) -> BoxStream<'static, LogLine> {
        let (store, about) = (self.store.clone(), slug.clone());
        let is_over = move || {
            let (store, slug) = (store.clone(), about.clone());
            async move { is_over(&store, &slug).await }
        };
        services.follow(self.engine.clone(), slug.clone(), from, is_over)
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
    async fn next(&mut self) -> Option<LogLine> {
        loop {
            tokio::select! {
                event = self.news.recv() => match event {
                    Ok(event) if event.guest.as_ref() == Some(&self.slug) => {
                        if let Some(line) = own_line(&event) {
                            return Some(line);
                        }
                    }
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                },
                // A preview's last event comes before its record goes.
                _ = self.poll.tick() => if is_over(&self.store, &self.slug).await {
                    return None;
                },
            }
        }
    }
}

/// Reports whether no further lines follow: the preview was removed, or its guest is to be stopped or asleep.
async fn is_over(store: &Store, slug: &GuestName) -> bool {
    let guest = store.guest(slug).await;
    matches!(store.preview(slug).await, Ok(None))
        || guest.is_ok_and(|guest| guest.is_some_and(|guest| !guest.should_have_processes()))
}

/// Checks the service of a filter: it becomes an argument of a program in the guest.
fn check_service(service: Option<&str>) -> Result<(), PreviewError> {
    let Some(service) = service else {
        return Ok(());
    };
    match ServiceName::parse(service) {
        Ok(_) => Ok(()),
        Err(error) => Err(PreviewError::new(
            Code::InvalidRequest,
            error.to_string(),
            "Name a service of the app, or `innkeeper` for the daemon's own lines.",
        )),
    }
}

/// Checks that the log has lines of a service, or may get some: the app's services, and other units of the guest that have
/// written lines.
fn require_source(
    slug: &GuestName,
    service: &str,
    meta: Option<&Meta>,
    lines: &[LogLine],
) -> Result<(), PreviewError> {
    let known = meta.map_or_else(Vec::new, |meta| {
        let all = std::iter::once(&meta.setup_service).chain(&meta.app_services);
        all.collect()
    });
    let is_known = ServiceName::parse(service).is_ok_and(|name| known.contains(&&name));
    if is_known || lines.iter().any(|line| line.source != CONSOLE_SOURCE) {
        return Ok(());
    }
    let names: Vec<_> = known.iter().map(ToString::to_string).collect();
    let remedy = match names.is_empty() {
        true => {
            "The services are known once the commit is evaluated. `innkeeper` names the daemon's own lines."
                .to_owned()
        }
        false => format!(
            "The app's services are {}; `innkeeper` names the daemon's own lines.",
            names.join(", ")
        ),
    };
    let text = format!("the log of preview '{slug}' has no lines of a service '{service}'");
    Err(PreviewError::new(Code::InvalidRequest, text, remedy))
}

/// Returns the lines of a console, which may be endless.
async fn console_lines(console: Console, lines: usize) -> Vec<LogLine> {
    let pieces = first_lines(console, lines).take_until(tokio::time::sleep(CONSOLE_TIMEOUT));
    let pieces: Vec<Vec<u8>> = pieces.filter_map(async |piece| piece.ok()).collect().await;
    let bytes = pieces.concat();
    let text = String::from_utf8_lossy(&bytes);
    let line = |text: &str| LogLine {
        time: None,
        source: CONSOLE_SOURCE.to_owned(),
        attempt: None,
        text: text.to_owned(),
    };
    text.lines().map(line).collect()
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

#[cfg(test)]
mod tests;
