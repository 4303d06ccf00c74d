//! Commands about the visitors of previews.

use innkeeper_model::preview::Visibility;
use innkeeper_model::preview::api::VisibilityReport;
use innkeeper_model::{GuestName, chain};
use tracing::{info, warn};

use crate::workers::WakeReason;
use crate::{PreviewError, Previews, records};

impl Previews {
    /// Sets the visitors of a preview; `None` leaves them to the host and the repository's file. A stricter setting is in force when
    /// this returns.
    ///
    /// # Errors
    /// [`PreviewError::NotFound`]; another setting is stricter; the host cannot check visitors.
    pub async fn set_visibility(
        &self,
        slug: &GuestName,
        visibility: Option<Visibility>,
        actor: &str,
    ) -> Result<VisibilityReport, PreviewError> {
        let components = &self.components;
        let report = components.visitors.set(slug, visibility).await?;
        info!(%slug, actor, visibility = %report.visibility, "visibility set");
        // The route of a public preview has shortcuts, which its worker adds.
        components.workers.wake(slug, WakeReason::Check);
        Ok(report)
    }

    /// Returns the visitors of a preview, and where they are set.
    ///
    /// # Errors
    /// [`PreviewError::NotFound`], or the store cannot be read.
    pub async fn visibility(&self, slug: &GuestName) -> Result<VisibilityReport, PreviewError> {
        let components = &self.components;
        let preview = records::require(&components.store, slug).await?;
        Ok(components.visitors.report(&preview))
    }

    /// Puts the recorded visibilities of all previews in force, before anything else after a start: the last daemon may have been
    /// killed before it had done so.
    pub async fn enforce_visibilities(&self) {
        if let Err(error) = self.components.visitors.enforce_all().await {
            warn!(
                "the visibilities of previews are not in force: {}",
                chain(&error)
            );
        }
    }
}
