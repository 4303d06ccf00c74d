//! Writes the status of each preview for its visitors ([`innkeeper_model::preview::page`]).
//!
//! The status follows from the preview's record, so it can be written again at any time. Only the lines of the log and the
//! times of the steps are kept here; the daemon's next start continues with those of the written status.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use innkeeper_engine::{Engine, KeyedLocks};
use innkeeper_facilities::{Found, Pages};
use innkeeper_model::preview::log::LogFilter;
use innkeeper_model::preview::page::{Interruption, PageStatus};
use innkeeper_model::preview::{Meta, PreviewRecord, PreviewState};
use innkeeper_model::{Event, EventKind, Failure, GuestName, chain};
use innkeeper_store::{EventFilter, Presence, Preview, Store};
use parking_lot::Mutex;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;
use tracing::warn;

use crate::journal::{Journal, line};
use crate::masks::Masks;
use crate::service_log::{From, ServiceLog};
use crate::{PreviewError, PreviewsConfig};
use feed::Feed;

mod feed;
mod status;

/// Interval at which changes are written: a build may report hundreds in a second.
const INTERVAL: Duration = Duration::from_millis(300);

/// Interval at which every status is compared with its record: not every change of a record has an event.
const COMPARISON: Duration = Duration::from_secs(10);

/// Number of the daemon's own lines that begin the log of a preview without a written status.
const FIRST_LINES: usize = 20;

/// The state that is kept of one preview.
#[derive(Default)]
struct Entry {
    feed: Feed,
    /// The last status that was written.
    written: Option<PageStatus>,
    /// The task that reads the guest's journal.
    follower: Option<AbortHandle>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(follower) = &self.follower {
            follower.abort();
        }
    }
}

/// Writes the status of previews. Clones share their state.
#[derive(Clone)]
pub(crate) struct StatusPages {
    config: Arc<PreviewsConfig>,
    store: Store,
    engine: Engine,
    journal: Journal,
    masks: Masks,
    pages: Arc<dyn Pages>,
    entries: Arc<Mutex<HashMap<GuestName, Entry>>>,
    changed: Arc<Mutex<HashSet<GuestName>>>,
    /// Held while a status is written.
    writing: Arc<KeyedLocks<GuestName>>,
}

impl StatusPages {
    pub(crate) fn new(
        config: Arc<PreviewsConfig>,
        engine: Engine,
        journal: Journal,
        masks: Masks,
        pages: Arc<dyn Pages>,
    ) -> Self {
        Self {
            config,
            store: engine.store().clone(),
            engine,
            journal,
            masks,
            pages,
            entries: Arc::default(),
            changed: Arc::default(),
            writing: Arc::default(),
        }
    }

    /// Writes every status, removes those of previews that are gone, and then writes each change.
    pub(crate) async fn run(self) {
        let mut news = self.journal.subscribe();
        let mut comparison = tokio::time::interval(COMPARISON);
        comparison.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut timer = tokio::time::interval(INTERVAL);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = news.recv() => match event {
                    Ok(event) => self.note(&event).await,
                    Err(RecvError::Lagged(_)) => self.write_all().await,
                    Err(RecvError::Closed) => return,
                },
                _ = comparison.tick() => self.write_all().await,
                _ = timer.tick() => {
                    let changed = std::mem::take(&mut *self.changed.lock());
                    for slug in changed {
                        self.write(&slug).await;
                    }
                }
            }
        }
    }

    /// Writes the status of a preview now. A failure is logged: a preview does not depend on its page.
    pub(crate) async fn write(&self, slug: &GuestName) {
        self.write_with(slug, |_| {}).await;
    }

    async fn write_with(&self, slug: &GuestName, change: impl FnOnce(&mut Feed) + Send) {
        if let Err(error) = self.publish(slug, change).await {
            warn!(%slug, "the preview's status is not written: {}", chain(&error));
        }
    }

    /// Records why an app does not answer although it was live, or that it does, and writes the status.
    pub(crate) async fn set_interruption(
        &self,
        slug: &GuestName,
        interruption: Option<Interruption>,
    ) {
        let is_known = self
            .entries
            .lock()
            .get(slug)
            .is_some_and(|entry| entry.feed.is_interrupted(interruption));
        if !is_known {
            self.write_with(slug, |feed| feed.interrupt(interruption))
                .await;
        }
    }

    /// Records that a request wakes the guest, and writes the status.
    pub(crate) async fn begin_wake(&self, slug: &GuestName) {
        self.write_with(slug, Feed::begin_wake).await;
    }

    /// As [`Self::fall_asleep`], unless the guest is being woken at the moment of the change.
    pub(crate) async fn fall_asleep_unless(
        &self,
        slug: &GuestName,
        failure: Option<Failure>,
        is_woken: impl FnOnce() -> bool + Send,
    ) {
        self.write_with(slug, |feed| {
            if !is_woken() {
                feed.fall_asleep(failure, None);
            }
        })
        .await;
    }

    /// Records that the guest is asleep, with the failure of its wake and the time until a request wakes it again, and writes
    /// the status.
    pub(crate) async fn fall_asleep(
        &self,
        slug: &GuestName,
        failure: Option<Failure>,
        retry_in: Option<Duration>,
    ) {
        self.write_with(slug, |feed| feed.fall_asleep(failure, retry_in))
            .await;
    }

    /// Removes the status of a preview that is gone.
    ///
    /// # Errors
    /// The file is left.
    pub(crate) async fn remove(&self, slug: &GuestName) -> Result<(), PreviewError> {
        let _writing = self.writing.lock(slug).await;
        self.entries.lock().remove(slug);
        self.masks.forget(slug);
        Ok(self.pages.remove(slug).await?)
    }

    async fn write_all(&self) {
        // Observed before the store is read: a preview's record exists before its status.
        let found = self.pages.observe().await.unwrap_or_default();
        let previews = match self.store.previews().await {
            Ok(previews) => previews,
            Err(error) => {
                warn!("no status of a preview is written: {}", chain(&error));
                return;
            }
        };
        let slugs: Vec<_> = previews
            .into_iter()
            .map(|preview| preview.record.slug)
            .collect();
        let is_orphan = |found: &&Found| {
            found
                .guest
                .as_ref()
                .is_some_and(|slug| !slugs.contains(slug))
        };
        for orphan in found.iter().filter(is_orphan) {
            if let Err(error) = self.pages.sweep(orphan).await {
                warn!("a status is left: {}", chain(&error));
            }
        }
        for slug in &slugs {
            self.write(slug).await;
        }
    }

    /// Adds an event to the log or the progress of its preview.
    async fn note(&self, event: &Event) {
        let Some(slug) = &event.guest else {
            return;
        };
        if let EventKind::Progress { progress } = &event.kind {
            if let Some(entry) = self.entries.lock().get_mut(slug) {
                entry.feed.progress = Some(progress.clone());
            }
        } else if let Some(text) = line(event) {
            let mask = self.masks.of(slug).await;
            let text = mask.line(&text);
            // The first status of a preview reads its lines from the store.
            if let Some(entry) = self.entries.lock().get_mut(slug) {
                entry.feed.push(event.time, &text);
            }
        }
        self.changed.lock().insert(slug.clone());
    }

    /// Writes the status after a change of the part that is kept here.
    async fn publish(
        &self,
        slug: &GuestName,
        change: impl FnOnce(&mut Feed) + Send,
    ) -> Result<(), PreviewError> {
        let _writing = self.writing.lock(slug).await;
        let Some(preview) = self.store.preview(slug).await? else {
            return Ok(());
        };
        // A pull request without a configuration is left alone.
        if !preview.config_seen && preview.record.pull_request.is_some() {
            return Ok(());
        }
        if !self.entries.lock().contains_key(slug) {
            let entry = self.load(slug).await?;
            self.entries.lock().insert(slug.clone(), entry);
        }
        let mask = self.masks.of(slug).await;
        let changed = {
            let mut entries = self.entries.lock();
            let entry = entries.entry(slug.clone()).or_default();
            change(&mut entry.feed);
            entry.feed.enter(&preview.record);
            self.follow_guest(&preview, entry);
            let status = status::compose(&self.config, &preview, &entry.feed, &mask);
            let is_durable =
                entry.written.as_ref().map(|written| written.state) != Some(status.state);
            let differs = entry.written.as_ref() != Some(&status);
            differs.then_some((status, is_durable))
        };
        let Some((status, is_durable)) = changed else {
            return Ok(());
        };
        self.pages.write(status.clone(), is_durable).await?;
        if let Some(entry) = self.entries.lock().get_mut(slug) {
            entry.written = Some(status);
        }
        Ok(())
    }

    /// Returns the state of a preview as the last daemon left it.
    async fn load(&self, slug: &GuestName) -> Result<Entry, PreviewError> {
        let written = self.pages.read(slug).await?;
        let mut feed = written.as_ref().map(Feed::of).unwrap_or_default();
        if feed.is_empty() {
            let filter = EventFilter {
                guest: Some(slug.clone()),
                limit: 10 * FIRST_LINES,
                newest: true,
                ..EventFilter::default()
            };
            let mask = self.masks.of(slug).await;
            for event in self.store.events(filter).await? {
                if let Some(text) = line(&event) {
                    feed.push(event.time, &mask.line(&text));
                }
            }
        }
        Ok(Entry {
            feed,
            written,
            follower: None,
        })
    }

    /// Starts or stops to read the guest's journal: it is shown while the guest prepares the app.
    fn follow_guest(&self, preview: &Preview, entry: &mut Entry) {
        let record = &preview.record;
        let prepares = matches!(
            record.state,
            PreviewState::Starting | PreviewState::SettingUp
        );
        let meta = preview.meta.as_ref().filter(|_| {
            prepares && record.live_sha.is_none() && preview.desired == Presence::Present
        });
        match (meta, &entry.follower) {
            (Some(meta), None) => {
                entry.feed.begin_guest();
                entry.follower = Some(self.spawn_follower(record, meta));
            }
            (None, Some(follower)) => {
                follower.abort();
                entry.follower = None;
            }
            _ => {}
        }
    }

    fn spawn_follower(&self, record: &PreviewRecord, meta: &Meta) -> AbortHandle {
        let (pages, slug) = (self.clone(), record.slug.clone());
        let services = ServiceLog::new(meta, &LogFilter::default(), None);
        let begun = record.rollout.began_at.unwrap_or(record.created_at);
        let from = From::Time(begun);
        let follower = tokio::spawn(async move {
            let is_over = || std::future::ready(false);
            let mut lines = services.follow(pages.engine.clone(), slug.clone(), from, is_over);
            while let Some(line) = lines.next().await {
                // Text that is no entry has none.
                let Some(at) = line.time else { continue };
                // Looked up for each line: the guest receives its secrets later.
                let mask = pages.masks.of(&slug).await;
                if let Some(entry) = pages.entries.lock().get_mut(&slug) {
                    let text = mask.line(&line.text);
                    entry.feed.push_of_guest(at, &text);
                    pages.changed.lock().insert(slug.clone());
                }
            }
        });
        follower.abort_handle()
    }
}

#[cfg(test)]
mod tests;
