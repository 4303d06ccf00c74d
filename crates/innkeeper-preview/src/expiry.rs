//! Previews that nobody uses: stopped first, removed with their files and database later.
//!
//! ```text
//!  in use ── ttl without use ──► expired: guest stopped, route shows a page ── ttl again ──► removed
//!    ▲                              │
//!    └── push, visit, command … ────┘ with its files and database
//! ```
//!
//! Age counts in running time ([`innkeeper_store::ExpiryClock`]): neither a clock that jumps nor a host that is off makes
//! a preview older.

use std::sync::Arc;

use innkeeper_model::preview::PreviewState;
use innkeeper_store::{NextDelivery, Presence, Preview, PreviewFact};
use tracing::info;

use crate::PreviewError;
use crate::desk::Why;
use crate::previews::Inner;

impl Inner {
    /// Has a preview expire that was not used for the TTL, and removes one that expired that long ago.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub(crate) async fn expire_when_due(
        self: &Arc<Self>,
        preview: &Preview,
    ) -> Result<(), PreviewError> {
        let Some(ttl) = self.config.ttl else {
            return Ok(());
        };
        if preview.desired == Presence::Absent
            || !self
                .store
                .expiry_clock()
                .await?
                .has_expired(preview.active_running, ttl)
        {
            return Ok(());
        }
        let slug = &preview.record.slug;
        let hours = ttl.as_secs() / 3_600;
        let (fact, text) = if preview.record.state == PreviewState::Expired {
            let text = format!("Removed: it expired {hours} h ago and was not used since.");
            (PreviewFact::Desired(Presence::Absent), text)
        } else {
            let text = format!(
                "Expired: not used for {hours} h. The guest is stopped; a push, a visit or `preview \
                 start {slug}` starts it again. Its files and database are removed {hours} h from now."
            );
            (PreviewFact::Expired, text)
        };
        // A push that has not been acted on is a use.
        if let Some(pull_request) = preview.record.pull_request()
            && self.store.next_delivery(&pull_request).await? != NextDelivery::None
        {
            return Ok(());
        }
        // Before and after: work that is in vain must record nothing after what is recorded here.
        self.wake(slug, Why::Order);
        if self
            .store
            .set_preview_if_unused(preview, vec![fact])
            .await?
            .is_some()
        {
            info!(%slug, "{text}");
            self.note(slug, text);
        }
        self.wake(slug, Why::Order);
        Ok(())
    }

    /// Stops the guest of a preview that has expired, and shows a page in place of the app. Its files and its database
    /// stay.
    ///
    /// # Errors
    /// When the page cannot be written or the guest does not stop.
    pub(crate) async fn keep_stopped(
        self: &Arc<Self>,
        preview: &Preview,
    ) -> Result<(), PreviewError> {
        let slug = &preview.record.slug;
        self.step(
            "ensure-page",
            self.ensure_page(preview, preview.record.state),
        )
        .await?;
        self.step("stop-guest", self.stop_guest(slug)).await?;
        self.report_soon(slug);
        Ok(())
    }
}
