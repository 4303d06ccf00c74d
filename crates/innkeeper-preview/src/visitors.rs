//! Requests of visitors, and packets, that wake a sleeping preview.
//!
//! `innkeeper-pages` holds a request to a preview whose guest is asleep, and asks for a wake of the guest, again and again until
//! the preview's status changes. So a call does nothing unless the guest is asleep and nobody wakes it yet.

use innkeeper_engine::EngineError;
use innkeeper_model::preview::PreviewState;
use innkeeper_model::{Explain as _, Failure, GuestName, Level, Verb, chain};
use innkeeper_store::{Presence, Preview, PreviewFact};
use jiff::Timestamp;
use tracing::{info, warn};

use crate::visitor_wakes::VisitorWake;
use crate::workers::WakeReason;
use crate::{PreviewError, Previews};

impl Previews {
    /// Begins to wake a preview that a visitor requests: its guest if that is asleep, or the preview if it has expired. Has no
    /// effect on others, and does not wait for the end. A failure is logged, and shown by the preview's page.
    pub async fn wake_for_visitor(&self, slug: &GuestName) {
        if let Err(error) = self.begin_wake(slug).await {
            warn!(%slug, code = %error.code(), "no visitor wakes the preview: {}", chain(&error));
        }
    }

    async fn begin_wake(&self, slug: &GuestName) -> Result<(), PreviewError> {
        let components = &self.components;
        let preview = components.store.preview(slug).await?;
        let Some(preview) = preview.filter(|preview| preview.desired == Presence::Present) else {
            return Ok(());
        };
        if preview.record.state == PreviewState::Expired {
            info!(%slug, "a visitor starts the preview again");
            let again = PreviewFact::State(PreviewState::Queued);
            self.record_visit(&preview, Some(again)).await?;
            components.workers.wake(slug, WakeReason::Command);
            return Ok(());
        }
        let guest = components.store.guest(slug).await?;
        if guest.and_then(|guest| guest.rests()) != Some(Level::Asleep) {
            // It may wait for its turn after a reboot of the host.
            components.staging.hasten(slug);
            components.engine.hasten(slug);
            return Ok(());
        }
        let Some(wake) = components.visitor_wakes.begin(slug) else {
            return Ok(());
        };
        info!(%slug, "a visitor wakes the preview");
        self.record_visit(&preview, None).await?;
        let previews = self.clone();
        components
            .background
            .spawn(async move { drop(previews.finish_wake(&preview, wake).await) });
        Ok(())
    }

    /// Wakes a preview's guest, and its app, for a packet that the guest received. Returns when the guest's processes run.
    ///
    /// # Errors
    /// When the guest does not wake.
    pub(crate) async fn wake_for_packet(&self, slug: &GuestName) -> Result<(), EngineError> {
        let components = &self.components;
        let preview = components.store.preview(slug).await?;
        let preview = preview.filter(|preview| preview.desired == Presence::Present);
        let wake = components.visitor_wakes.begin(slug);
        let (Some(preview), Some(wake)) = (preview, wake) else {
            // Shares the wake for a visitor.
            return components.engine.wake_on_demand(slug).await;
        };
        if let Err(error) = self.record_visit(&preview, None).await {
            warn!(%slug, code = %error.code(), "its use is not recorded: {}", chain(&error));
        }
        self.finish_wake(&preview, wake).await
    }

    /// Wakes the guest, and has the preview's worker start the app or show the failure.
    async fn finish_wake(&self, preview: &Preview, wake: VisitorWake) -> Result<(), EngineError> {
        let components = &self.components;
        let slug = &preview.record.slug;
        // The old processes must have ended: their ports are not those of the woken app.
        if let Ok(Some(running)) = components.engine.operation_on(slug).await
            && matches!(running.verb, Verb::Pause | Verb::Sleep)
        {
            drop(components.engine.ended_operation(running.id).await);
        }
        components.routing.show_waking(slug).await;
        let woken = components.engine.wake_on_demand(slug).await;
        drop(wake);
        match &woken {
            Ok(()) => {
                self.follow_wake(preview, Some(Level::Asleep));
                return Ok(());
            }
            // It failed a moment ago.
            Err(EngineError::NotWoken { retry_in, .. }) => {
                components.routing.refuse_wake(slug, *retry_in).await;
            }
            Err(error) => {
                let failure = Failure::from(error);
                warn!(%slug, code = %failure.code, "the preview does not wake: {failure}");
                components
                    .journal
                    .note(slug, format!("It does not wake: {failure}."));
            }
        }
        components.workers.wake(slug, WakeReason::Check);
        woken
    }

    /// Records a use of a preview: it is not removed for want of use, and makes no room for others.
    async fn record_visit(
        &self,
        preview: &Preview,
        more: Option<PreviewFact>,
    ) -> Result<(), PreviewError> {
        let record = &preview.record;
        let now = Timestamp::now();
        let mut facts = vec![
            PreviewFact::Active(now.max(record.last_activity)),
            PreviewFact::Visited(now),
        ];
        facts.extend(more);
        self.components
            .store
            .set_preview(&record.slug, facts)
            .await?;
        Ok(())
    }
}
