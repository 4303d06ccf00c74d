//! Publishes how far a preview is: in its record, its log, its page and on GitHub.

use innkeeper_model::preview::PreviewState;
use innkeeper_store::{Preview, PreviewFact, Store};

use crate::PreviewError;
use crate::journal::Journal;
use crate::reporter::Reporter;
use crate::routing::Routing;

/// Publishes the states of previews.
#[derive(Clone)]
pub(crate) struct Stages {
    store: Store,
    journal: Journal,
    reporter: Reporter,
    routing: Routing,
}

impl Stages {
    pub(crate) fn new(
        store: Store,
        journal: Journal,
        reporter: Reporter,
        routing: Routing,
    ) -> Self {
        Self {
            store,
            journal,
            reporter,
            routing,
        }
    }

    /// Records that a preview enters a state and publishes it. A preview whose former version is live keeps its route
    /// and is shown as updating.
    ///
    /// # Errors
    /// The record or the page cannot be written.
    pub(crate) async fn enter(
        &self,
        preview: &Preview,
        state: PreviewState,
    ) -> Result<(), PreviewError> {
        let slug = &preview.record.slug;
        let is_live = preview.record.live_sha.is_some();
        let shown = match state {
            PreviewState::Evaluating
            | PreviewState::Building
            | PreviewState::Starting
            | PreviewState::SettingUp
                if is_live =>
            {
                PreviewState::Updating
            }
            state => state,
        };
        self.store
            .set_preview(slug, vec![PreviewFact::State(shown)])
            .await?;
        if state != PreviewState::Closing {
            let sha = preview.record.wanted_sha.short();
            let state = state.as_str().replace('-', " ");
            self.journal.note(slug, format!("{sha}: {state}."));
        }
        self.reporter.report_soon(slug);
        if is_live || state == PreviewState::Closing {
            return Ok(());
        }
        let page = self.routing.show_page(preview);
        self.journal.step("ensure-page", page).await
    }
}
