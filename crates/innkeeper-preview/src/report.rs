//! What GitHub is told about a preview: always the newest state, and nothing twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use innkeeper_github::client::GithubError;
use innkeeper_github::report::Report;
use innkeeper_model::preview::PreviewState;
use innkeeper_model::{Failure, GuestName};
use innkeeper_store::Preview;
use tokio::sync::Mutex as AsyncMutex;
use tracing::warn;

use crate::PreviewError;
use crate::previews::Inner;

/// How often a report that failed is tried at once. After that, the timer tries.
const ATTEMPTS: u32 = 5;

/// What GitHub was told last of each preview.
#[derive(Debug, Default)]
pub(crate) struct Told {
    of: Mutex<HashMap<GuestName, Arc<AsyncMutex<Option<Report>>>>>,
}

impl Told {
    fn of(&self, slug: &GuestName) -> Arc<AsyncMutex<Option<Report>>> {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(of.entry(slug.clone()).or_default())
    }

    fn forget(&self, slug: &GuestName) {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        of.remove(slug);
    }
}

impl Inner {
    /// Tells GitHub how the preview is, without anybody waiting for it.
    pub(crate) fn report_soon(self: &Arc<Self>, slug: &GuestName) {
        let (inner, slug) = (Arc::clone(self), slug.clone());
        self.tasks.spawn(async move {
            let tell = async {
                for attempt in 0..ATTEMPTS {
                    match inner.report(&slug).await {
                        Ok(()) => return,
                        Err(error) => {
                            warn!(%slug, "GitHub was not told: {}", innkeeper_model::chain(&error));
                            if !error.is_transient() {
                                return;
                            }
                            tokio::time::sleep(Duration::from_secs(2 << attempt)).await;
                        }
                    }
                }
            };
            tokio::select! {
                () = tell => {}
                () = inner.stopping.cancelled() => {}
            }
        });
    }

    /// Tells GitHub how the preview is, even if it was told the same before: somebody may have changed it there.
    ///
    /// # Errors
    /// When GitHub does not take it.
    pub(crate) async fn report_again(&self, slug: &GuestName) -> Result<(), PreviewError> {
        *self.told.of(slug).lock().await = None;
        self.report(slug).await
    }

    async fn report(&self, slug: &GuestName) -> Result<(), PreviewError> {
        // Whoever comes second reads the record after the first has told its news, so the newest comes last.
        let told = self.told.of(slug);
        let mut told = told.lock().await;
        let arrived = self.store.last_delivery_seq().await?;
        let Some(preview) = self.store.preview(slug).await? else {
            // It was removed while this waited.
            self.told.forget(slug);
            return Ok(());
        };
        let meta = preview.live_meta.as_ref().or(preview.meta.as_ref());
        let view = self.config.view(preview.record.clone(), meta);
        let report = Report::of(&view, &self.config.style);
        if *told != report {
            self.tell(report.as_ref()).await?;
            *told = report;
        }
        let record = &preview.record;
        if record.state == PreviewState::WaitingForApproval {
            // A label approves only what people could read before it was given.
            self.store
                .record_announcement(slug, &record.wanted_sha, arrived)
                .await?;
        }
        Ok(())
    }

    /// Reads a preview's record after a report that is being sent has ended.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn after_report(
        &self,
        slug: &GuestName,
    ) -> Result<Option<Preview>, PreviewError> {
        let told = self.told.of(slug);
        let _told = told.lock().await;
        Ok(self.store.preview(slug).await?)
    }

    /// Tells GitHub that the preview was removed.
    ///
    /// # Errors
    /// When GitHub does not take it.
    pub(crate) async fn report_removal(&self, preview: &Preview) -> Result<(), PreviewError> {
        let slug = &preview.record.slug;
        let told = self.told.of(slug);
        let _told = told.lock().await;
        let view = self
            .config
            .view(preview.record.clone(), preview.live_meta.as_ref());
        self.tell(Report::removed(&view, &self.config.style).as_ref())
            .await?;
        self.told.forget(slug);
        Ok(())
    }

    async fn tell(&self, report: Option<&Report>) -> Result<(), PreviewError> {
        let (Some(github), Some(report)) = (&self.github, report) else {
            return Ok(());
        };
        let Err(mut error) = github.publish(report).await else {
            return Ok(());
        };
        let at = error.0.iter().position(GithubError::is_transient);
        match at.or((!error.0.is_empty()).then_some(0)) {
            Some(at) => Err(error.0.swap_remove(at).into()),
            None => Err(Failure::from(&error).into()),
        }
    }
}
