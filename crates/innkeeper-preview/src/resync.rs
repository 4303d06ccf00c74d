//! Periodic resync: finds closes and pushes whose delivery was lost, checks every preview, expires and evicts.

use std::collections::BTreeMap;
use std::sync::Arc;

use innkeeper_github::client::{Github, PullRequestView};
use innkeeper_model::preview::{PreviewState, RepoName};
use innkeeper_model::{Explain, chain};
use innkeeper_store::{NextDelivery, Presence, Preview, PreviewFact, Store};
use tracing::{info, warn};

use crate::approvals::{Approvals, refusal_of};
use crate::branches::Branches;
use crate::capacity::Capacity;
use crate::deliveries::Deliveries;
use crate::expiry::Expiry;
use crate::records::is_unchanged;
use crate::redelivery::Redelivery;
use crate::reporter::Reporter;
use crate::repositories::Repositories;
use crate::requests::Requests;
use crate::upkeep::Upkeep;
use crate::visibility::Visitors;
use crate::workers::{WakeReason, Workers};
use crate::{PreviewError, PreviewsConfig};

/// The periodic resync.
pub(crate) struct Resync {
    pub(crate) config: Arc<PreviewsConfig>,
    pub(crate) deliveries: Deliveries,
    pub(crate) capacity: Capacity,
    pub(crate) checks: Checks,
    pub(crate) repositories: Repositories,
    pub(crate) visitors: Visitors,
    pub(crate) redelivery: Redelivery,
    pub(crate) comparison: Comparison,
    pub(crate) reporter: Reporter,
    pub(crate) branches: Branches,
}

impl Resync {
    /// Resyncs at once and then at every interval, until it is dropped.
    pub(crate) async fn run(mut self) {
        let mut timer = tokio::time::interval(self.config.interval);
        loop {
            timer.tick().await;
            self.resync().await;
        }
    }

    /// Does every part, whether or not the others succeed.
    async fn resync(&mut self) {
        for result in [
            // A delivery whose retry is due has no other wakeup once its preview is gone.
            self.deliveries.dispatch().await,
            self.capacity.record_visits().await,
            self.checks.run().await,
            self.reporter.conclude_orphans().await,
            self.repositories.check_all().await,
            // After the repositories: the settings of one that was renamed are others.
            self.visitors.enforce_all().await,
            self.redelivery.request_lost().await,
            self.comparison.run().await,
            self.branches.run().await,
        ] {
            if let Err(error) = result {
                warn!(code = %error.code(), "{}", chain(&error));
            }
        }
    }
}

/// Periodic checks of all previews.
pub(crate) struct Checks {
    pub(crate) store: Store,
    pub(crate) expiry: Expiry,
    pub(crate) workers: Workers,
    pub(crate) upkeep: Upkeep,
}

impl Checks {
    async fn run(&self) -> Result<(), PreviewError> {
        for preview in self.store.previews().await? {
            self.expiry.expire_if_due(&preview).await?;
            self.workers.wake(&preview.record.slug, WakeReason::Check);
        }
        self.upkeep.evict_evaluations().await
    }
}

/// Comparison of previews with their pull requests on GitHub.
#[derive(Clone)]
pub(crate) struct Comparison {
    pub(crate) config: Arc<PreviewsConfig>,
    pub(crate) store: Store,
    pub(crate) github: Option<Github>,
    pub(crate) approvals: Approvals,
    pub(crate) requests: Requests,
    pub(crate) capacity: Capacity,
    pub(crate) repositories: Repositories,
    pub(crate) workers: Workers,
}

impl Comparison {
    /// Removes previews whose pull requests are closed, and updates those whose pull requests have other commits than
    /// were delivered. It creates no previews: one that a user removed stays away until the next push.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn run(&self) -> Result<(), PreviewError> {
        let Some(github) = &self.github else {
            return Ok(());
        };
        let mut by_repo: BTreeMap<RepoName, Vec<Preview>> = BTreeMap::new();
        for preview in self.store.previews().await? {
            if preview.record.pull_request.is_some() && preview.desired == Presence::Present {
                by_repo
                    .entry(preview.record.repo.clone())
                    .or_default()
                    .push(preview);
            }
        }
        for (repo, previews) in by_repo {
            // Another repository may have the name by now: its list has other pull requests.
            let absence = self.repositories.absence_of(&repo);
            if absence.is_some_and(|absence| absence.is_without_name()) {
                continue;
            }
            match github.open_pull_requests(&repo).await {
                Ok(open) => {
                    for preview in previews {
                        // A failure on one does not keep the others from being compared.
                        if let Err(error) = self.compare(github, &preview, &open).await {
                            let slug = &preview.record.slug;
                            warn!(%slug, code = %error.code(), "{}", chain(&error));
                        }
                    }
                }
                // Without the list, no pull request may be taken for closed.
                Err(error) => warn!(%repo, code = %error.code(), "{}", chain(&error)),
            }
        }
        Ok(())
    }

    async fn compare(
        &self,
        github: &Github,
        preview: &Preview,
        open: &[PullRequestView],
    ) -> Result<(), PreviewError> {
        let record = &preview.record;
        let Some(pull_request) = record.pull_request() else {
            return Ok(());
        };
        // A pending delivery is newer than a list that was read before it arrived.
        if self.store.next_delivery(&pull_request).await? != NextDelivery::None {
            return Ok(());
        }
        let Some(view) = open.iter().find(|view| view.pull_request == pull_request) else {
            // The list may be stale: the pull request may have been opened since.
            let Some(now) = github.pull_request(&pull_request).await? else {
                // Pull requests are closed, and never deleted by users: GitHub is in disorder, or hides the author.
                warn!(slug = %record.slug, %pull_request, "GitHub does not show the pull request; its preview is kept");
                return Ok(());
            };
            if !now.open && is_unchanged(&self.store, preview).await? {
                let reason = "its pull request is closed";
                self.capacity.dismiss(preview, reason).await?;
            }
            return Ok(());
        };
        if view.details != preview.details {
            let details = PreviewFact::Details(view.details.clone());
            self.store.set_preview(&record.slug, vec![details]).await?;
        }
        if record.delivery_source().is_none() {
            // It follows the first one.
            return Ok(());
        }
        if self.requests.outdated(preview, view).is_some() {
            // The list may be older than the last change.
            let now = github.pull_request(&pull_request).await?;
            let reason = now.and_then(|now| self.requests.outdated(preview, &now));
            if let Some(reason) = reason
                && is_unchanged(&self.store, preview).await?
            {
                self.capacity.dismiss(preview, reason).await?;
            }
            return Ok(());
        }
        self.approvals.compare_label(preview, view).await?;
        // A command brings the approved commit up: the newer one, which is not approved, waits for its end.
        if record.approved_sha.as_ref() == Some(&record.wanted_sha)
            && record.is_from_fork()
            && !record.state.is_settled()
        {
            return Ok(());
        }
        // Under the repository's new name, its own branches would look like those of a fork.
        let has_its_name = self.repositories.absence_of(&record.repo).is_none();
        if has_its_name
            && view.head_sha != record.wanted_sha
            && is_unchanged(&self.store, preview).await?
        {
            info!(slug = %record.slug, sha = %view.head_sha, "a push was not delivered");
            let label = &self.config.approval_label;
            let facts = vec![
                PreviewFact::Head {
                    repo: view.head_repo.clone(),
                    branch: view.head_branch.clone(),
                    sha: view.head_sha.clone(),
                },
                PreviewFact::State(PreviewState::Queued),
                PreviewFact::Fault(refusal_of(preview, label, &view.head_sha)),
            ];
            self.store.set_preview(&record.slug, facts).await?;
            self.workers.wake(&record.slug, WakeReason::Change);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
