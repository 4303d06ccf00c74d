//! Levels of previews' guests by the engine's decision: what a preview adds to the rest of its guest, and its use.

use std::time::Duration;

use async_trait::async_trait;
use innkeeper_engine::{EngineError, LevelHooks};
use innkeeper_model::{Failure, Guest, GuestName, Level, chain};
use innkeeper_store::{Presence, PreviewFact};
use jiff::Timestamp;
use tracing::warn;

use crate::{PreviewError, Previews, records};

/// The age of a preview's last use from which another use is recorded.
const RECORD_AFTER: Duration = Duration::from_secs(300);

#[async_trait]
impl LevelHooks for Previews {
    async fn before_rest(&self, guest: &Guest, level: Level) -> Result<bool, Failure> {
        let prepared = self.prepare_rest(&guest.name, level).await;
        prepared.map_err(|error| Failure::from(&error))
    }

    async fn after_rest(&self, guest: &Guest, accepted: bool) {
        self.follow_rest(&guest.name, accepted);
    }

    async fn wake(&self, guest: &GuestName) -> Result<(), EngineError> {
        self.wake_for_packet(guest).await
    }

    async fn used(&self, guests: &[GuestName]) {
        for slug in guests {
            if let Err(error) = self.record_use(slug).await {
                warn!(%slug, "its use is not recorded: {}", chain(&error));
            }
        }
    }
}

impl Previews {
    /// Ends the watch of a preview's app, or shows the page. Reports whether the preview may rest: only a settled one may.
    async fn prepare_rest(&self, slug: &GuestName, level: Level) -> Result<bool, PreviewError> {
        let components = &self.components;
        let preview = records::require(&components.store, slug).await?;
        if preview.desired != Presence::Present || !preview.record.state.is_settled() {
            return Ok(false);
        }
        match level {
            Level::Awake => {}
            // Before the pause: a probe would wait like a request.
            Level::Paused => components.routing.suspend_watch(slug),
            // Before the sleep: no request reaches an app that is gone.
            Level::Asleep => components.routing.show_asleep(&preview).await?,
        }
        Ok(true)
    }

    /// Records that a preview is in use, unless that was recorded a moment ago.
    async fn record_use(&self, slug: &GuestName) -> Result<(), PreviewError> {
        let store = &self.components.store;
        let Some(preview) = store.preview(slug).await? else {
            return Ok(());
        };
        if store.running_time().await?.since(preview.active_running) < RECORD_AFTER {
            return Ok(());
        }
        let used = PreviewFact::Active(Timestamp::now().max(preview.record.last_activity));
        store.set_preview(slug, vec![used]).await?;
        Ok(())
    }
}
