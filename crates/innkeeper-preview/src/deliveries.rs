//! Deliveries: dispatches them to the previews' workers, and records what each one wants.

use std::sync::Arc;

use innkeeper_github::client::Github;
use innkeeper_model::preview::{
    BranchName, CommitSha, PrAction, PreviewState, PullRequest, PullRequestEvent, RepoName,
    slug_candidates, webhook_slug,
};
use innkeeper_model::{Code, chain};
use innkeeper_store::{
    Delivery, DeliveryOutcome, NewPreview, NextDelivery, Presence, Preview, PreviewFact, Store,
};
use jiff::Timestamp;
use tracing::{info, warn};

use crate::approvals::{Approvals, refusal_of};
use crate::background::Background;
use crate::journal::Journal;
use crate::reporter::Reporter;
use crate::repositories::Repositories;
use crate::retry::outcome;
use crate::workers::{WakeReason, Workers};
use crate::{PreviewError, PreviewsConfig};

/// The commit that a preview should serve.
struct Head {
    /// `None` when that repository is gone.
    repo: Option<RepoName>,
    branch: BranchName,
    sha: CommitSha,
}

impl Head {
    fn of(event: &PullRequestEvent) -> Self {
        Self {
            repo: event.head_repo.clone(),
            branch: event.head_branch.clone(),
            sha: event.head_sha.clone(),
        }
    }
}

/// Result of recording a delivery's wish.
pub(crate) enum Accepted {
    /// The record has it, and its plan is to be executed.
    Recorded(Box<Preview>),
    /// The delivery needs no execution and ends like this.
    Finished(DeliveryOutcome),
    /// It ended meanwhile: another delivery or a command superseded it.
    Superseded,
}

/// Dispatches and records deliveries.
#[derive(Clone)]
pub(crate) struct Deliveries {
    pub(crate) config: Arc<PreviewsConfig>,
    pub(crate) store: Store,
    pub(crate) github: Option<Github>,
    pub(crate) journal: Journal,
    pub(crate) approvals: Approvals,
    pub(crate) reporter: Reporter,
    pub(crate) repositories: Repositories,
    pub(crate) workers: Workers,
    pub(crate) background: Background,
}

impl Deliveries {
    /// Wakes the workers of all previews with pending deliveries.
    ///
    /// # Errors
    /// The store cannot be read or written. The deliveries of the other pull requests were dispatched.
    pub(crate) async fn dispatch(&self) -> Result<(), PreviewError> {
        let mut result = self.dispatch_repositories().await;
        for pull_request in self.store.pending_pull_requests().await? {
            result = result.and(self.dispatch_pull_request(&pull_request).await);
        }
        result
    }

    /// Has previews follow renamed repositories, and wakes those of deleted ones.
    async fn dispatch_repositories(&self) -> Result<(), PreviewError> {
        for slug in self.store.previews_of_deleted_repos().await? {
            self.workers.wake(&slug, WakeReason::Change);
        }
        if self.store.repos_to_check().await?.is_empty() {
            return Ok(());
        }
        // In the background: deliveries do not wait for GitHub.
        let repositories = self.repositories.clone();
        self.background.spawn(async move {
            if let Err(error) = repositories.follow_renamed().await {
                warn!(
                    "the lookup of a renamed repository is retried: {}",
                    chain(&error)
                );
            }
        });
        Ok(())
    }

    async fn dispatch_pull_request(&self, pull_request: &PullRequest) -> Result<(), PreviewError> {
        match self.store.preview_of(pull_request).await? {
            Some(preview) => {
                self.workers.wake(&preview.record.slug, WakeReason::Change);
                Ok(())
            }
            None => self.act_without_preview(pull_request).await,
        }
    }

    /// Acts on the deliveries of a pull request without a preview: one that wants a preview creates it, and the others
    /// are done.
    async fn act_without_preview(&self, pull_request: &PullRequest) -> Result<(), PreviewError> {
        while let NextDelivery::Process(delivery) = self.store.next_delivery(pull_request).await? {
            let event = &delivery.event;
            let outcome = match self.wants_preview(&delivery).await {
                Ok(true) => {
                    // It arrived while its preview was being removed.
                    let preview = self.claim(event).await?;
                    self.workers.wake(&preview.record.slug, WakeReason::Change);
                    return Ok(());
                }
                Ok(false) if event.action == PrAction::Closed => DeliveryOutcome::Done,
                Ok(false) => DeliveryOutcome::Ignored(None),
                Err(error) => outcome(&error, delivery.attempts),
            };
            self.store.finish_delivery(&event.delivery, outcome).await?;
        }
        Ok(())
    }

    async fn wants_preview(&self, delivery: &Delivery) -> Result<bool, PreviewError> {
        match delivery.event.action {
            PrAction::Opened | PrAction::Synchronize | PrAction::Reopened => Ok(true),
            // It may have been reopened in the same second.
            PrAction::Closed => Ok(self.desired_head(delivery).await?.is_some()),
            _ => Ok(false),
        }
    }

    /// Records a preview for a pull request that wants one.
    async fn claim(&self, event: &PullRequestEvent) -> Result<Preview, PreviewError> {
        let pull_request = &event.pull_request;
        let wanted = webhook_slug(&pull_request.repo, pull_request.number);
        let identity = pull_request.to_string().to_ascii_lowercase();
        let slugs = slug_candidates(&wanted, &identity).collect();
        Ok(self
            .store
            .claim_preview(NewPreview::of(event), slugs)
            .await?)
    }

    /// Records what a delivery wants of its preview.
    ///
    /// # Errors
    /// GitHub does not answer a query that it needs, or the store cannot be written.
    pub(crate) async fn accept(
        &self,
        delivery: &Delivery,
        preview: &Preview,
    ) -> Result<Accepted, PreviewError> {
        let event = &delivery.event;
        let slug = &preview.record.slug;
        let label = &self.config.approval_label;
        let mut facts = vec![
            PreviewFact::LastDelivery(event.delivery.clone()),
            PreviewFact::Active(Timestamp::now()),
        ];
        let outcome = match &event.action {
            PrAction::Opened | PrAction::Synchronize | PrAction::Reopened | PrAction::Closed => {
                facts.extend(match self.desired_head(delivery).await? {
                    Some(Head { repo, branch, sha }) => vec![
                        PreviewFact::Desired(Presence::Present),
                        PreviewFact::State(PreviewState::Queued),
                        PreviewFact::Fault(refusal_of(preview, label, &sha)),
                        PreviewFact::Head { repo, branch, sha },
                    ],
                    None => vec![PreviewFact::Desired(Presence::Absent)],
                });
                let recorded = self
                    .store
                    .set_preview_for_delivery(&event.delivery, slug, facts);
                let recorded = self.journal.step("record-wish", recorded).await?;
                return Ok(recorded.map_or(Accepted::Superseded, |preview| {
                    Accepted::Recorded(Box::new(preview))
                }));
            }
            PrAction::Edited => {
                self.store.set_preview(slug, facts).await?;
                self.reporter.report_again(slug).await?;
                DeliveryOutcome::Done
            }
            PrAction::Labeled(set) if set == label => {
                self.store.set_preview(slug, facts).await?;
                self.approvals.approve_by_label(delivery, preview).await?
            }
            PrAction::Unlabeled if preview.approved_by_label => {
                self.store.set_preview(slug, facts).await?;
                self.approvals.withdraw_by_label(delivery, preview).await?
            }
            PrAction::Labeled(_) | PrAction::Unlabeled | PrAction::Other(_) => {
                DeliveryOutcome::Ignored(None)
            }
        };
        Ok(Accepted::Finished(outcome))
    }

    /// Returns the commit that a pull request's preview should serve after it was opened, pushed to, closed or reopened;
    /// `None` when the preview should be removed. If GitHub's times do not order such events, GitHub is queried for the
    /// pull request's state.
    async fn desired_head(&self, delivery: &Delivery) -> Result<Option<Head>, PreviewError> {
        let event = &delivery.event;
        let by_arrival = (event.action != PrAction::Closed).then(|| Head::of(event));
        let Some(github) = &self.github else {
            return Ok(by_arrival);
        };
        let Some(tied_at) = self.store.latest_tied_time(delivery).await? else {
            return Ok(by_arrival);
        };
        let pull_request = &event.pull_request;
        match github.pull_request(pull_request).await {
            Ok(Some(view)) if view.updated_at.is_some_and(|time| time < tied_at) => {
                Err(PreviewError::new(
                    Code::GithubFailed,
                    format!("GitHub returned pull request {pull_request} in a stale state"),
                    "No event is lost: the query is retried automatically.",
                ))
            }
            Ok(Some(view)) => {
                info!(%pull_request, open = view.open, "GitHub's state decides between events of the same time");
                Ok(view.open.then_some(Head {
                    repo: view.head_repo,
                    branch: view.head_branch,
                    sha: view.head_sha,
                }))
            }
            Ok(None) => Ok(by_arrival),
            Err(error) if error.is_transient() => Err(error.into()),
            Err(error) => {
                warn!(%pull_request, "the order of arrival decides: {}", chain(&error));
                Ok(by_arrival)
            }
        }
    }
}

#[cfg(test)]
mod tests;
