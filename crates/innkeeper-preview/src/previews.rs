//! The previews of a host: starts and stops them, and answers queries.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use innkeeper_facilities::Databases;
use innkeeper_model::api::{Check, GcReport, GcRequest};
use innkeeper_model::preview::api::PreviewExplanation;
use innkeeper_model::preview::log::{LogFilter, LogLine};
use innkeeper_model::preview::{Outlook, PreviewView};
use innkeeper_model::{Explain as _, GuestName, chain};
use innkeeper_store::{Preview, RunningTime, StaleSecret, StoreError};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::warn;

use crate::wiring::{Components, Parts, ToStart, wire};
use crate::worker::Worker;
use crate::workers::WakeReason;
use crate::{PreviewError, level_changes, records, removal, settle};

/// Delay before a failed dispatch of deliveries is retried.
const DISPATCH_RETRY: Duration = Duration::from_secs(1);

/// The previews of this host. Clones share the same previews.
#[derive(Clone)]
pub struct Previews {
    pub(crate) components: Arc<Components>,
    pub(crate) to_start: Arc<Mutex<Option<ToStart>>>,
}

impl Previews {
    /// Creates previews of these parts. They act only after [`Previews::start`].
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let (components, to_start) = wire(parts);
        Self {
            components: Arc::new(components),
            to_start: Arc::new(Mutex::new(Some(to_start))),
        }
    }

    /// Resumes the work of the last daemon and starts the workers. `arrivals` changes when deliveries have arrived. Has no
    /// effect the second time.
    pub fn start(&self, mut arrivals: watch::Receiver<()>) {
        let background = &self.components.background;
        let to_start = self.to_start.lock().take();
        let Some(ToStart {
            status_pages,
            resync,
            watch,
            deliveries,
            workers: mut new_workers,
            parts,
        }) = to_start
        else {
            return;
        };
        let components = &self.components;
        // Before the first look of a worker, so that no change is missed.
        let events = components.engine.journal().subscribe();
        let (engine, workers) = (components.engine.clone(), components.workers.clone());
        background.spawn(level_changes::follow(events, engine, workers));
        background.spawn(status_pages.run());
        let previews = self.clone();
        background.spawn(async move {
            // Before the first look of the workers.
            previews.stage().await;
            resync.run().await;
        });
        background.spawn(watch.run());
        background.spawn(settle::run(Arc::clone(&self.components.upkeep.routes)));
        background.spawn(self.components.disk_usage.clone().run());
        let tasks = background.clone();
        background.spawn(async move {
            while let Some(new) = new_workers.recv().await {
                tasks.spawn(Worker::new(new, parts.clone()).run());
            }
        });
        background.spawn(async move {
            arrivals.mark_changed();
            while arrivals.changed().await.is_ok() {
                if let Err(error) = deliveries.dispatch().await {
                    warn!("the dispatch of deliveries is retried: {}", chain(&error));
                    tokio::time::sleep(DISPATCH_RETRY).await;
                    arrivals.mark_changed();
                }
            }
        });
    }

    /// Has the previews that are awake come back in turns if the host was rebooted, the last used first.
    async fn stage(&self) {
        match self.awake().await {
            Ok(slugs) => self.components.staging.stage(slugs),
            Err(error) => {
                warn!(code = %error.code(), "all apps come back at once: {}", chain(&error));
            }
        }
    }

    /// Returns the previews that have an app and do not rest, the last used first.
    async fn awake(&self) -> Result<Vec<GuestName>, StoreError> {
        let store = &self.components.store;
        let guests = store.guests().await?;
        let awake: HashSet<_> = (guests.into_iter())
            .filter(|guest| guest.should_have_processes() && guest.rests().is_none())
            .map(|guest| guest.name)
            .collect();
        let mut previews = store.previews().await?;
        previews.retain(|preview| {
            let record = &preview.record;
            record.live_sha.is_some() && awake.contains(&record.slug)
        });
        previews.sort_by_key(|preview| Reverse(preview.record.last_activity));
        let slugs = previews.into_iter().map(|preview| preview.record.slug);
        Ok(slugs.collect())
    }

    /// Cancels all work and waits for its end. The next start resumes it.
    pub async fn stop(&self) {
        self.components.background.stop().await;
    }

    /// Returns every preview, by slug.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn list(&self) -> Result<Vec<PreviewView>, PreviewError> {
        let previews = self.components.store.previews().await?;
        let now = self.components.store.running_time().await?;
        // Best effort: without the guests, the list is still useful.
        let guests = self.components.engine.list().await.unwrap_or_default();
        let memory: BTreeMap<_, _> = guests
            .into_iter()
            .map(|view| (view.guest.name, view.memory_bytes))
            .collect();
        let stale = self.components.store.stale_secrets().await?;
        let view = |preview: Preview| {
            let memory = memory.get(&preview.record.slug).copied().flatten();
            self.view(preview, memory, &stale, now)
        };
        Ok(previews.into_iter().map(view).collect())
    }

    /// Returns one preview.
    ///
    /// # Errors
    /// [`PreviewError::NotFound`], or the store cannot be read.
    pub async fn show(&self, slug: &GuestName) -> Result<PreviewView, PreviewError> {
        let preview = records::require(&self.components.store, slug).await?;
        let now = self.components.store.running_time().await?;
        let guest = self.components.guests.view(slug).await.ok().flatten();
        let memory = guest.and_then(|guest| guest.memory_bytes);
        let stale = self.components.store.stale_secrets().await?;
        Ok(self.view(preview, memory, &stale, now))
    }

    fn view(
        &self,
        preview: Preview,
        memory: Option<u64>,
        stale: &[StaleSecret],
        now: RunningTime,
    ) -> PreviewView {
        let components = &self.components;
        let outlook = Outlook {
            observed_at: Some(Timestamp::now()),
            visited_at: preview.visited_at,
            memory_bytes: memory,
            disk_bytes: components.disk_usage.of(&preview.record.slug),
            build: components.explainer.reporter.build(&preview.record.slug),
            waits_for: preview.record.waits_for(),
            removal: removal::pending(&preview, now, components.config.dropped_grace),
            stale_secrets: records::stale_secrets(&preview.record.slug, stale),
        };
        let visibility = components.visitors.visibility(&preview);
        let meta = preview.live_meta.or(preview.meta);
        let absence = self
            .components
            .repositories
            .absence_of(&preview.record.repo);
        PreviewView {
            repo_trouble: absence.map(|absence| absence.to_string()),
            app_trouble: self.components.health.trouble(&preview.record.slug),
            visibility,
            outlook,
            ..self.components.config.view(preview.record, meta.as_ref())
        }
    }

    /// Returns the last lines of the log: the daemon's and those of the app's services, by time. With `follow`, later lines
    /// come after them.
    ///
    /// # Errors
    /// [`PreviewError::NotFound`], no attempt has the filter's number, or the store cannot be read.
    pub async fn logs(
        &self,
        slug: &GuestName,
        lines: usize,
        follow: bool,
        filter: LogFilter,
    ) -> Result<BoxStream<'static, LogLine>, PreviewError> {
        self.components.logs.open(slug, lines, follow, filter).await
    }

    /// Returns the chain from the URL to the delivery.
    ///
    /// # Errors
    /// [`PreviewError::NotFound`], or the store cannot be read.
    pub async fn explain(&self, slug: &GuestName) -> Result<PreviewExplanation, PreviewError> {
        let explanation = self.components.explainer.explain(slug).await?;
        // Without a guest, nothing rests.
        let rest = self.components.engine.rest_report(slug).await.ok();
        Ok(PreviewExplanation {
            rest,
            ..explanation
        })
    }

    /// Returns the server of previews' databases, if the host has one.
    #[must_use]
    pub fn database_server(&self) -> Option<&dyn Databases> {
        self.components.databases.server().ok()
    }

    /// Has a preview's worker compare the host with its record, which a restore has written.
    pub fn follow_record(&self, slug: &GuestName) {
        self.components.workers.wake(slug, WakeReason::Change);
        self.components.workers.wake(slug, WakeReason::Check);
    }

    /// Checks the requirements of previews on the host and on GitHub, without changing anything.
    pub async fn checks(&self) -> Vec<Check> {
        self.components.upkeep.checks().await
    }

    /// Reports whether the web server serves the routes of previews.
    pub async fn web_server_works(&self) -> bool {
        self.components.upkeep.web_server_works().await
    }

    /// Marks the objects that a former release made for the recorded previews, as [`Engine::adopt`] does for guests.
    ///
    /// [`Engine::adopt`]: innkeeper_engine::Engine::adopt
    ///
    /// # Errors
    /// The host or the store cannot be queried, or the host refuses a mark.
    pub async fn adopt(&self) -> Result<(), PreviewError> {
        self.components.upkeep.adopt().await
    }

    /// Finds objects with previews' naming that belong to no preview, and removes them as requested. Other daemons'
    /// objects stay.
    ///
    /// A failure to remove one orphan is part of its entry. A kind of objects that cannot be listed is one of the report's
    /// failures; the others are swept all the same.
    pub async fn gc(&self, request: GcRequest) -> GcReport {
        self.components.upkeep.gc(request).await
    }
}
