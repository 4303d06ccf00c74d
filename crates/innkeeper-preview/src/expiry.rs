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
//! A preview whose commit has no `preview-config.nix` any more, or whose branch is gone, does not expire: it is removed after
//! a grace period, unless the file or the branch returns. The end of that period waits while a newer commit is being looked
//! at: it may have the file.
//!
//! Age counts in running time ([`innkeeper_store::ExpiryClock`]): neither a clock that jumps nor a host that is off makes
//! a preview older.

use std::time::Duration;

use innkeeper_model::preview::{PreviewState, RemovalReason};
use innkeeper_store::{NextDelivery, Presence, Preview, PreviewFact, Store};
use tracing::info;

use crate::journal::Journal;
use crate::workers::{WakeReason, Workers};
use crate::{PreviewError, PreviewsConfig, removal};

/// Expires previews.
#[derive(Clone)]
pub(crate) struct Expiry {
    ttl: Option<Duration>,
    grace: Duration,
    store: Store,
    journal: Journal,
    workers: Workers,
}

impl Expiry {
    /// Uses the TTL and the grace period of the configuration.
    pub(crate) fn new(
        config: &PreviewsConfig,
        store: Store,
        journal: Journal,
        workers: Workers,
    ) -> Self {
        Self {
            ttl: config.ttl,
            grace: config.dropped_grace,
            store,
            journal,
            workers,
        }
    }

    /// Expires a preview that was not used for the TTL, and removes one that expired that long ago or whose grace period has
    /// ended.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub(crate) async fn expire_if_due(&self, preview: &Preview) -> Result<(), PreviewError> {
        if preview.desired == Presence::Absent {
            return Ok(());
        }
        let clock = self.store.expiry_clock().await?;
        if let Some(since) = preview.removal_running
            && let Some(reason) = removal::reason(preview)
        {
            if clock.has_expired(since, self.grace) {
                self.end_grace(preview, reason).await?;
            }
            return Ok(());
        }
        let Some(ttl) = self.ttl else {
            return Ok(());
        };
        // A stopped preview does not expire, since a visit would start it: it is removed when an expired one would be.
        let age = match preview.record.state {
            PreviewState::Stopped => ttl.saturating_mul(2),
            _ => ttl,
        };
        match clock.has_expired(preview.active_running, age) {
            true => self.expire(preview, ttl).await,
            false => Ok(()),
        }
    }

    /// Removes a preview at the end of its grace period.
    async fn end_grace(
        &self,
        preview: &Preview,
        reason: RemovalReason,
    ) -> Result<(), PreviewError> {
        let what = match reason {
            RemovalReason::ConfigMissing => "its commits have no preview-config.nix",
            RemovalReason::BranchGone => "its branch is gone",
        };
        let text = format!("Removed: {what}, and the grace period has ended.");
        let absent = PreviewFact::Desired(Presence::Absent);
        self.record_if_unused(preview, absent, text).await
    }

    async fn expire(&self, preview: &Preview, ttl: Duration) -> Result<(), PreviewError> {
        let (slug, state) = (&preview.record.slug, preview.record.state);
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
        self.record_if_unused(preview, fact, text).await
    }

    /// Records a change of a preview, unless it was used meanwhile, with a line in its log.
    async fn record_if_unused(
        &self,
        preview: &Preview,
        fact: PreviewFact,
        text: String,
    ) -> Result<(), PreviewError> {
        let slug = &preview.record.slug;
        // A pending push is a use.
        if let Some(pull_request) = preview.record.delivery_source()
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
