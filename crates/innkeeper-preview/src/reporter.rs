//! Reports previews' states on GitHub: the newest state comes last, and the same report is not repeated.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use innkeeper_engine::KeyedLocks;
use innkeeper_github::client::{Github, GithubError};
use innkeeper_github::report::Report;
use innkeeper_model::preview::PreviewState;
use innkeeper_model::{Backoff, Code, Failure, GuestName, chain};
use innkeeper_store::{Preview, Store};
use parking_lot::Mutex;
use tracing::warn;

use crate::background::Background;
use crate::{PreviewError, PreviewsConfig};

/// Number of attempts for a report. After that, the periodic check reports again.
const ATTEMPTS: u32 = 5;

/// Delays between these attempts.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(32));

/// The last report on each preview.
#[derive(Debug, Default)]
struct LastReported {
    reports: Mutex<HashMap<GuestName, Report>>,
    /// Held while a report is sent.
    sending: KeyedLocks<GuestName>,
}

impl LastReported {
    fn get(&self, slug: &GuestName) -> Option<Report> {
        self.reports.lock().get(slug).cloned()
    }

    fn set(&self, slug: &GuestName, report: Option<Report>) {
        let mut reports = self.reports.lock();
        match report {
            Some(report) => drop(reports.insert(slug.clone(), report)),
            None => drop(reports.remove(slug)),
        }
    }
}

/// Reports on previews. Clones share the last reports.
#[derive(Clone)]
pub(crate) struct Reporter {
    config: Arc<PreviewsConfig>,
    store: Store,
    github: Option<Github>,
    background: Background,
    last: Arc<LastReported>,
}

impl Reporter {
    pub(crate) fn new(
        config: Arc<PreviewsConfig>,
        store: Store,
        github: Option<Github>,
        background: Background,
    ) -> Self {
        Self {
            config,
            store,
            github,
            background,
            last: Arc::default(),
        }
    }

    /// Reports the preview's state in the background.
    pub(crate) fn report_soon(&self, slug: &GuestName) {
        let (reporter, slug) = (self.clone(), slug.clone());
        self.background.spawn(async move {
            for attempt in 1..=ATTEMPTS {
                let Err(error) = reporter.report(&slug, false).await else {
                    return;
                };
                warn!(%slug, "GitHub did not accept the report: {}", chain(&error));
                if !error.is_transient() {
                    return;
                }
                tokio::time::sleep(BACKOFF.delay(attempt)).await;
            }
        });
    }

    /// Reports the preview's state, even if it was reported before: it may have been edited on GitHub.
    ///
    /// # Errors
    /// GitHub does not accept it.
    pub(crate) async fn report_again(&self, slug: &GuestName) -> Result<(), PreviewError> {
        self.report(slug, true).await
    }

    /// Reports the preview's state if it differs from the last report, or by `force`.
    async fn report(&self, slug: &GuestName, force: bool) -> Result<(), PreviewError> {
        // Locked before the record is read, so that the newest state is reported last.
        let _sending = self.last.sending.lock(slug).await;
        if force {
            self.last.set(slug, None);
        }
        let arrived = self.store.last_delivery_seq().await?;
        let Some(preview) = self.store.preview(slug).await? else {
            // It was removed while this waited.
            self.last.set(slug, None);
            return Ok(());
        };
        if !may_report(&preview) {
            return Ok(());
        }
        let meta = preview.live_meta.as_ref().or(preview.meta.as_ref());
        let view = self.config.view(preview.record.clone(), meta);
        let report = Report::of(&view, &self.config.style);
        if self.last.get(slug) != report {
            self.send(report.as_ref()).await?;
            self.last.set(slug, report);
        }
        let record = &preview.record;
        if record.state == PreviewState::WaitingForApproval {
            // A label approves only a commit that people could read before they set it.
            self.store
                .record_announcement(slug, &record.wanted_sha, arrived)
                .await?;
        }
        Ok(())
    }

    /// Reads a preview's record once no report on it is in flight.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn after_report(
        &self,
        slug: &GuestName,
    ) -> Result<Option<Preview>, PreviewError> {
        let _sending = self.last.sending.lock(slug).await;
        Ok(self.store.preview(slug).await?)
    }

    /// Reports that the preview was removed.
    ///
    /// # Errors
    /// GitHub does not accept it.
    pub(crate) async fn report_removal(&self, preview: &Preview) -> Result<(), PreviewError> {
        let slug = &preview.record.slug;
        if !preview.config_seen {
            return Ok(());
        }
        let _sending = self.last.sending.lock(slug).await;
        let view = self
            .config
            .view(preview.record.clone(), preview.live_meta.as_ref());
        self.send(Report::removed(&view, &self.config.style).as_ref())
            .await?;
        self.last.set(slug, None);
        Ok(())
    }

    async fn send(&self, report: Option<&Report>) -> Result<(), PreviewError> {
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

/// Reports whether a preview may appear on GitHub: pull requests of repositories without a configuration are left alone,
/// and a missing permission of the host is no business of the public.
fn may_report(preview: &Preview) -> bool {
    let fault = preview.record.fault.as_ref();
    preview.config_seen && fault.is_none_or(|fault| fault.code != Code::NoAccess)
}

#[cfg(test)]
mod tests;
