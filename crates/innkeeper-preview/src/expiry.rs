//! Expiry of unused previews: stopped first, removed with their files and database later.
//!
//! ```text
//!  in use ── ttl without use ──► expired: guest stopped, route shows a page ── ttl again ──► removed
//!    │                                                                                        ▲
//!    └── `/preview stop` in a comment ──► stopped ── twice ttl without use ───────────────────┘
//!    ▲                              │
//!    └── push, visit, command … ────┘ with its files and database
//! ```
//!
//! Age counts in running time ([`innkeeper_store::ExpiryClock`]): neither a clock that jumps nor a host that is off makes
//! a preview older.

use std::time::Duration;

use innkeeper_model::preview::PreviewState;
use innkeeper_store::{NextDelivery, Presence, Preview, PreviewFact, Store};
use tracing::info;

use crate::PreviewError;
use crate::journal::Journal;
use crate::workers::{WakeReason, Workers};

/// Expires previews.
#[derive(Clone)]
pub(crate) struct Expiry {
    ttl: Option<Duration>,
    store: Store,
    journal: Journal,
    workers: Workers,
}

impl Expiry {
    /// `ttl` is the time without use after which a preview expires, and after which it is removed then; `None` means
    /// never.
    pub(crate) fn new(
        ttl: Option<Duration>,
        store: Store,
        journal: Journal,
        workers: Workers,
    ) -> Self {
        Self {
            ttl,
            store,
            journal,
            workers,
        }
    }

    /// Expires a preview that was not used for the TTL, and removes one that expired that long ago.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub(crate) async fn expire_if_due(&self, preview: &Preview) -> Result<(), PreviewError> {
        let Some(ttl) = self.ttl else {
            return Ok(());
        };
        let state = preview.record.state;
        // A stopped preview does not expire, since a visit would start it: it is removed when an expired one would be.
        let age = match state {
            PreviewState::Stopped => ttl.saturating_mul(2),
            _ => ttl,
        };
        let clock = self.store.expiry_clock().await?;
        if preview.desired == Presence::Absent || !clock.has_expired(preview.active_running, age) {
            return Ok(());
        }
        let slug = &preview.record.slug;
        let hours = ttl.as_secs() / 3_600;
        let (fact, text) = if state == PreviewState::Stopped {
            let hours = 2 * hours;
            let text = format!("Removed: it was stopped and not used for {hours} h.");
            (PreviewFact::Desired(Presence::Absent), text)
        } else if state == PreviewState::Expired {
            let text = format!("Removed: it expired {hours} h ago and was not used since.");
            (PreviewFact::Desired(Presence::Absent), text)
        } else {
            let text = format!(
                "Expired: not used for {hours} h. The guest is stopped; a push, a visit or `preview \
                 start {slug}` starts it again. Its files and database are removed {hours} h from now."
            );
            (PreviewFact::Expired, text)
        };
        // A pending push is a use.
        if let Some(pull_request) = preview.record.pull_request()
            && self.store.next_delivery(&pull_request).await? != NextDelivery::None
        {
            return Ok(());
        }
        // Before and after: canceled work must not write after this record.
        self.workers.wake(slug, WakeReason::Command);
        if self
            .store
            .set_preview_if_unused(preview, vec![fact])
            .await?
            .is_some()
        {
            info!(%slug, "{text}");
            self.journal.note(slug, text);
        }
        self.workers.wake(slug, WakeReason::Command);
        Ok(())
    }
}
