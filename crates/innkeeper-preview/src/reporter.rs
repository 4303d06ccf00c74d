//! Reports previews' states on GitHub: the newest state comes last, and the same report is not repeated.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use innkeeper_engine::KeyedLocks;
use innkeeper_github::client::{Github, GithubError};
use innkeeper_github::report::Report;
use innkeeper_model::preview::sources::SourcePath;
use innkeeper_model::preview::{CheckResult, CommitSha, PreviewState, PullRequest, Situation};
use innkeeper_model::{Backoff, BuildProgress, Code, Failure, GuestName, chain};
use innkeeper_store::{Presence, Preview, Store};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::warn;

use crate::background::Background;
use crate::commit_checks::CommitChecks;
use crate::{PreviewError, PreviewsConfig};

/// Number of attempts for a report. After that, the periodic check reports again.
const ATTEMPTS: u32 = 5;

/// Delays between these attempts.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(32));

/// Minimum time between two reports on a preview whose work is in progress: GitHub limits requests that write.
const INTERVAL: Duration = Duration::from_secs(5);

/// The reports on each preview.
#[derive(Debug, Default)]
struct Reports {
    /// The last ones.
    last: Mutex<HashMap<GuestName, Last>>,
    /// The previews whose newest state is about to be reported, each with a wakeup for its task.
    queued: Mutex<HashMap<GuestName, Arc<Notify>>>,
    /// The builds in progress.
    builds: Mutex<HashMap<GuestName, BuildProgress>>,
    /// The failures of the last reports.
    troubles: Mutex<BTreeMap<GuestName, Failure>>,
    /// Held while a report is sent.
    sending: KeyedLocks<GuestName>,
}

/// A report that GitHub has accepted.
#[derive(Clone, Debug)]
struct Last {
    report: Option<Report>,
    at: Instant,
}

impl Reports {
    fn last(&self, slug: &GuestName) -> Option<Last> {
        self.last.lock().get(slug).cloned()
    }

    fn set(&self, slug: &GuestName, report: Option<Report>) {
        let at = Instant::now();
        let last = Last { report, at };
        self.last.lock().insert(slug.clone(), last);
    }

    fn forget(&self, slug: &GuestName) {
        self.last.lock().remove(slug);
        self.builds.lock().remove(slug);
        self.troubles.lock().remove(slug);
    }

    /// Adds a preview to the queue. `None` if it is there already: its task is woken and reports the newest state.
    fn enqueue(&self, slug: &GuestName) -> Option<Arc<Notify>> {
        let mut queued = self.queued.lock();
        if let Some(wakeup) = queued.get(slug) {
            wakeup.notify_one();
            return None;
        }
        let wakeup = Arc::new(Notify::new());
        queued.insert(slug.clone(), Arc::clone(&wakeup));
        Some(wakeup)
    }

    fn dequeue(&self, slug: &GuestName) {
        self.queued.lock().remove(slug);
    }
}

/// Reports on previews. Clones share the last reports.
#[derive(Clone)]
pub(crate) struct Reporter {
    config: Arc<PreviewsConfig>,
    store: Store,
    github: Option<Github>,
    background: Background,
    checks: CommitChecks,
    reports: Arc<Reports>,
}

impl Reporter {
    pub(crate) fn new(
        config: Arc<PreviewsConfig>,
        store: Store,
        github: Option<Github>,
        background: Background,
        checks: CommitChecks,
    ) -> Self {
        Self {
            config,
            store,
            github,
            background,
            checks,
            reports: Arc::default(),
        }
    }

    /// Reports the preview's state in the background. Coalesces reports that follow each other closely.
    pub(crate) fn report_soon(&self, slug: &GuestName) {
        let Some(wakeup) = self.reports.enqueue(slug) else {
            return;
        };
        let (reporter, slug) = (self.clone(), slug.clone());
        self.background.spawn(async move {
            reporter.wait_for_turn(&slug, &wakeup).await;
            reporter.reports.dequeue(&slug);
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

    /// Waits until a report may follow the last one: at once for a settled state.
    async fn wait_for_turn(&self, slug: &GuestName, wakeup: &Notify) {
        let Some(last) = self.reports.last(slug) else {
            return;
        };
        let turn = last.at + INTERVAL;
        while Instant::now() < turn {
            let preview = self.store.preview(slug).await;
            let is_in_progress = matches!(preview, Ok(Some(preview)) if is_in_progress(&preview));
            if !is_in_progress {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep_until(turn) => {}
                () = wakeup.notified() => {}
            }
        }
    }

    /// Sets the progress of a preview's build; `None` when it has ended. The next report shows it.
    pub(crate) fn set_build(&self, slug: &GuestName, build: Option<BuildProgress>) {
        let mut builds = self.reports.builds.lock();
        match build {
            Some(build) => drop(builds.insert(slug.clone(), build)),
            None => drop(builds.remove(slug)),
        }
    }

    /// Returns the progress of a preview's build, if one is in progress.
    pub(crate) fn build(&self, slug: &GuestName) -> Option<BuildProgress> {
        self.reports.builds.lock().get(slug).cloned()
    }

    /// Returns the failures of the last reports, by preview.
    pub(crate) fn troubles(&self) -> BTreeMap<GuestName, Failure> {
        self.reports.troubles.lock().clone()
    }

    /// Returns the failure of the last report on a preview.
    pub(crate) fn trouble(&self, slug: &GuestName) -> Option<Failure> {
        self.reports.troubles.lock().get(slug).cloned()
    }

    /// Concludes the checks of a pull request's commit that has no preview, in the background, if checks are enabled: one
    /// for each configuration of the repository.
    pub(crate) fn conclude_all_soon(
        &self,
        pull_request: &PullRequest,
        sha: &CommitSha,
        situation: Situation,
    ) {
        self.conclude_soon(pull_request, None, sha, situation);
        for path in self.config.config_paths.additional(&pull_request.repo) {
            self.conclude_soon(pull_request, Some(path), sha, situation);
        }
    }

    /// Concludes the check of a commit without a preview of a configuration, in the background, if checks are enabled.
    pub(crate) fn conclude_soon(
        &self,
        pull_request: &PullRequest,
        config_path: Option<&SourcePath>,
        sha: &CommitSha,
        situation: Situation,
    ) {
        let (checks, pull_request, sha) = (self.checks.clone(), pull_request.clone(), sha.clone());
        let path = config_path.cloned();
        self.background.spawn(async move {
            let concluded = checks.conclude(&pull_request, path.as_ref(), &sha, situation);
            if let Err(error) = concluded.await {
                warn!(%pull_request, "cannot record the check: {}", chain(&error));
            }
        });
    }

    /// Concludes all checks that no preview reports any more.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub(crate) async fn conclude_orphans(&self) -> Result<(), PreviewError> {
        self.checks.conclude_orphans().await
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
        let _sending = self.reports.sending.lock(slug).await;
        let arrived = self.store.last_delivery_seq().await?;
        let Some(preview) = self.store.preview(slug).await? else {
            // It was removed while this waited.
            self.reports.forget(slug);
            return Ok(());
        };
        if !may_report(&preview) {
            return Ok(());
        }
        let record = &preview.record;
        let report = self.report_of(&preview);
        let last = self.reports.last(slug).filter(|_| !force);
        if last.is_none_or(|last| last.report != report) {
            self.checks.begin(record, report.as_ref()).await?;
            let sent = self.send(report.as_ref()).await;
            self.note_trouble(slug, sent.as_ref().err());
            sent?;
            self.checks.end(record, report.as_ref()).await?;
            self.reports.set(slug, report);
        }
        if record.state == PreviewState::WaitingForApproval {
            // A label approves only a commit that people could read before they set it.
            self.store
                .record_announcement(slug, &record.wanted_sha, arrived)
                .await?;
        }
        Ok(())
    }

    /// Returns the report on a preview, without secrets.
    fn report_of(&self, preview: &Preview) -> Option<Report> {
        let meta = preview.live_meta.as_ref().or(preview.meta.as_ref());
        let mut view = self.config.view(preview.record.clone(), meta);
        view.outlook.build = self.build(&preview.record.slug);
        Report::of(&view, &self.config.style)
    }

    fn note_trouble(&self, slug: &GuestName, error: Option<&PreviewError>) {
        let mut troubles = self.reports.troubles.lock();
        match error {
            Some(error) => drop(troubles.insert(slug.clone(), Failure::from(error))),
            None => drop(troubles.remove(slug)),
        }
    }

    /// Reads a preview's record once no report on it is in flight.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn after_report(
        &self,
        slug: &GuestName,
    ) -> Result<Option<Preview>, PreviewError> {
        let _sending = self.reports.sending.lock(slug).await;
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
        let _sending = self.reports.sending.lock(slug).await;
        let view = self
            .config
            .view(preview.record.clone(), preview.live_meta.as_ref());
        self.checks.end_all_of(&preview.record).await?;
        self.send(Report::removed(&view, &self.config.style).as_ref())
            .await?;
        self.reports.forget(slug);
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

/// Reports whether work on a preview is in progress, so that its next state follows soon.
fn is_in_progress(preview: &Preview) -> bool {
    let record = &preview.record;
    preview.desired == Presence::Present
        && record.fault.is_none()
        && Situation::of(record).words().check == CheckResult::Pending
}

#[cfg(test)]
mod tests;
