//! From a preview to nothing: first what strangers can reach, last the record.

use std::sync::Arc;

use innkeeper_model::preview::PreviewState;
use innkeeper_model::{Explain, Failure, chain};
use innkeeper_store::{Preview, PreviewFact};
use tracing::warn;

use crate::PreviewError;
use crate::previews::Inner;

impl Inner {
    /// Removes everything of a preview, tells GitHub, and deletes the record. What is absent is no failure, so
    /// it can be done again after a crash at any point. What cannot be removed does not keep the rest.
    ///
    /// # Errors
    /// When something of it is left; then the record is still there.
    pub(crate) async fn remove(self: &Arc<Self>, preview: &Preview) -> Result<(), PreviewError> {
        let slug = &preview.record.slug;
        self.enter(preview, PreviewState::Closing).await?;
        // Somebody may want it again in the middle of this; then nothing of it is taken for served.
        let gone = self.store.set_preview(slug, vec![PreviewFact::NotLive]);
        self.step("record-gone", gone).await?;
        let mut left = Vec::new();
        let route = self.step("remove-route", self.routes.remove(slug)).await;
        let guest = if let Err(error) = route {
            left.push(error.into());
            // The slot is not given away while a route may lead to its address: nothing runs there, and the
            // guest's record stays.
            self.step("stop-guest", self.stop_guest(slug)).await
        } else {
            self.step("remove-guest", self.remove_guest(slug)).await
        };
        left.extend(guest.err());
        self.tokens.forget(slug);
        if let Some(databases) = &self.databases {
            let database = self.step("remove-database", databases.remove(slug)).await;
            left.extend(database.err().map(PreviewError::from));
        }
        // The others are in the log of the daemon and of the preview; they are tried again with the first.
        let mut left = left.into_iter();
        if let Some(first) = left.next() {
            for error in left {
                let failure = Failure::from(&error);
                warn!(%slug, code = %failure.code, "{failure}");
                self.note(slug, failure.to_string());
            }
            return Err(first);
        }
        // GitHub is no reason to keep the record for ever, only to try again while it may pass; and none at all for
        // somebody on the host.
        match self
            .step("report-removal", self.report_removal(preview))
            .await
        {
            Err(error) if error.is_transient() && !self.given_up().contains(slug) => {
                return Err(error);
            }
            Err(error) => warn!(%slug, code = %error.code(), "{}", chain(&error)),
            Ok(()) => {}
        }
        self.step("forget", self.store.delete_preview(slug)).await?;
        self.given_up().remove(slug);
        Ok(())
    }
}
