//! Deliveries: dispatches them to the previews' workers, and records what each one wants.

use std::collections::HashSet;
use std::sync::Arc;

use innkeeper_github::client::Github;
use innkeeper_model::preview::{
    BranchName, CommitSha, DeliveryEvent, PrAction, PreviewState, PullDetails, PullRequest,
    PullRequestEvent, RepoName, Situation,
};
use innkeeper_model::{Code, chain};
use innkeeper_store::{
    Delivery, DeliveryOutcome, NewPreview, NextDelivery, Presence, Preview, PreviewFact, Store,
};
use jiff::Timestamp;
use parking_lot::Mutex;
use tracing::{info, warn};

use crate::approvals::{Approvals, refusal_of};
use crate::background::Background;
use crate::comment_commands::CommentCommands;
use crate::journal::Journal;
use crate::reporter::Reporter;
use crate::repositories::Repositories;
use crate::requests::{Change, Requests, slugs_of};
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
    /// Its end is recorded: it was executed as a command, or another delivery or a command superseded it.
    Ended,
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
    pub(crate) requests: Requests,
    pub(crate) commands: CommentCommands,
    pub(crate) workers: Workers,
    pub(crate) background: Background,
    /// The pull requests without a preview whose deliveries are acted on in the background.
    pub(crate) acting: Arc<Mutex<HashSet<PullRequest>>>,
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
    /// are done. From the first one that depends on GitHub, this happens in the background: deliveries of other pull
    /// requests do not wait for GitHub.
    async fn act_without_preview(&self, pull_request: &PullRequest) -> Result<(), PreviewError> {
        while let NextDelivery::Process(delivery) = self.store.next_delivery(pull_request).await? {
            let event = match &delivery.event {
                DeliveryEvent::PullRequest(event) if !self.requests.concerns(event) => event,
                _ => {
                    self.act_in_background(pull_request.clone());
                    return Ok(());
                }
            };
            let outcome = match self.wants_preview(&delivery, event).await {
                Ok(None) => {
                    // It arrived while its preview was being removed.
                    let slugs = slugs_of(pull_request);
                    let new = NewPreview::of(event);
                    let preview = self.store.claim_preview(new, slugs).await?;
                    self.workers.wake(&preview.record.slug, WakeReason::Change);
                    return Ok(());
                }
                Ok(Some(outcome)) => outcome,
                Err(error) => outcome(&error, delivery.attempts),
            };
            self.conclude_check(event, &outcome);
            self.store
                .finish_delivery(delivery.event.id(), outcome)
                .await?;
        }
        Ok(())
    }

    /// Returns how the delivery of a pull request without a preview ends; `None` if it wants a preview.
    async fn wants_preview(
        &self,
        delivery: &Delivery,
        event: &PullRequestEvent,
    ) -> Result<Option<DeliveryOutcome>, PreviewError> {
        let refusal = || {
            let refusal = self.config.admission.refusal_of_draft(event.draft);
            refusal.map(|refusal| DeliveryOutcome::Ignored(Some(refusal)))
        };
        Ok(match event.action {
            PrAction::Opened | PrAction::Synchronize | PrAction::Reopened => refusal(),
            // It may have been reopened in the same second.
            PrAction::Closed if self.desired_head(delivery, event).await?.is_some() => refusal(),
            PrAction::Closed => Some(DeliveryOutcome::Done),
            _ => Some(DeliveryOutcome::Ignored(None)),
        })
    }

    /// Ends the checks of a commit without a preview: one that branch protection requires must not block the merge.
    fn conclude_check(&self, event: &PullRequestEvent, outcome: &DeliveryOutcome) {
        let DeliveryOutcome::Ignored(Some(reason)) = outcome else {
            return;
        };
        if reason.code == Code::PreviewNotRequested {
            let situation = match event.draft {
                true => Situation::Draft,
                false => Situation::NotRequested,
            };
            self.reporter
                .conclude_all_soon(&event.pull_request, &event.head_sha, situation);
        }
    }

    /// Acts on the deliveries of a pull request without a preview that depend on GitHub, unless that is in progress.
    fn act_in_background(&self, pull_request: PullRequest) {
        if !self.acting.lock().insert(pull_request.clone()) {
            return;
        }
        let this = self.clone();
        self.background.spawn(async move {
            let mut result = this.act_on_requests(&pull_request).await;
            this.acting.lock().remove(&pull_request);
            // One that arrived in the last moment was left to this task.
            result = result.and(this.dispatch_again(&pull_request).await);
            if let Err(error) = result {
                warn!(%pull_request, "its deliveries are retried: {}", chain(&error));
            }
        });
    }

    async fn dispatch_again(&self, pull_request: &PullRequest) -> Result<(), PreviewError> {
        match self.store.next_delivery(pull_request).await? {
            NextDelivery::Process(_) => Box::pin(self.dispatch_pull_request(pull_request)).await,
            NextDelivery::WaitUntil(_) | NextDelivery::None => Ok(()),
        }
    }

    /// Acts on the next deliveries of a pull request without a preview, as long as they depend on GitHub.
    async fn act_on_requests(&self, pull_request: &PullRequest) -> Result<(), PreviewError> {
        while let NextDelivery::Process(delivery) = self.store.next_delivery(pull_request).await? {
            if self.store.preview_of(pull_request).await?.is_some() {
                return Ok(());
            }
            let acted = match &delivery.event {
                DeliveryEvent::Command(event) => {
                    self.commands
                        .execute_without_preview(&delivery, event)
                        .await
                }
                DeliveryEvent::PullRequest(event) if self.requests.concerns(event) => {
                    self.requests.act(&delivery, event).await
                }
                DeliveryEvent::PullRequest(_) => return Ok(()),
            };
            let ended = acted.unwrap_or_else(|error| Some(outcome(&error, delivery.attempts)));
            if let Some(outcome) = ended {
                if let DeliveryEvent::PullRequest(event) = &delivery.event {
                    self.conclude_check(event, &outcome);
                }
                let finished = self.store.finish_delivery(delivery.event.id(), outcome);
                self.journal.step("finish-delivery", finished).await?;
            }
        }
        Ok(())
    }

    /// Reports whether a delivery may interrupt the work in progress. The command of an author without permission may not:
    /// it ends here.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(crate) async fn may_interrupt(&self, delivery: &Delivery) -> Result<bool, PreviewError> {
        let DeliveryEvent::Command(event) = &delivery.event else {
            return Ok(true);
        };
        let outcome = match self.commands.authorize(delivery, event).await {
            Ok(None) => return Ok(true),
            Ok(Some(refused)) => DeliveryOutcome::Ignored(Some(refused)),
            Err(error) => outcome(&error, delivery.attempts),
        };
        self.store
            .finish_delivery(delivery.event.id(), outcome)
            .await?;
        Ok(false)
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
        let event = match &delivery.event {
            DeliveryEvent::PullRequest(event) => event,
            DeliveryEvent::Command(event) => {
                let executed = self.commands.execute(delivery, event, preview).await?;
                return Ok(executed.map_or(Accepted::Ended, Accepted::Finished));
            }
        };
        if let Some(change) = self.requests.change(delivery, event, preview).await? {
            return self.record_change(event, preview, change).await;
        }
        let slug = &preview.record.slug;
        let label = &self.config.approval_label;
        let mut facts = vec![
            PreviewFact::LastDelivery(event.delivery.clone()),
            PreviewFact::Active(Timestamp::now()),
        ];
        // Deliveries of former releases have none.
        if event.details != PullDetails::default() {
            facts.push(PreviewFact::Details(event.details.clone()));
        }
        let outcome = match &event.action {
            PrAction::Opened | PrAction::Synchronize | PrAction::Reopened | PrAction::Closed => {
                let mut head = self.desired_head(delivery, event).await?;
                if head.is_some()
                    && preview.desired == Presence::Absent
                    && let Some(refusal) = self.requests.refusal(event).await?
                {
                    let outcome = DeliveryOutcome::Ignored(Some(refusal));
                    self.conclude_check(event, &outcome);
                    return Ok(Accepted::Finished(outcome));
                }
                // The event with which it became a draft may be lost.
                head = head.filter(|_| self.config.admission.keeps(event.draft, preview.request));
                facts.extend(match head {
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
                return Ok(recorded.map_or(Accepted::Ended, |preview| {
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
            PrAction::Labeled(_)
            | PrAction::Unlabeled
            | PrAction::ReadyForReview
            | PrAction::ConvertedToDraft
            | PrAction::Other(_) => DeliveryOutcome::Ignored(None),
        };
        Ok(Accepted::Finished(outcome))
    }

    /// Records the change that a request, or its withdrawal, causes. Its execution is not part of the delivery: a newer
    /// commit must be able to supersede it.
    async fn record_change(
        &self,
        event: &PullRequestEvent,
        preview: &Preview,
        change: Change,
    ) -> Result<Accepted, PreviewError> {
        let mut facts = match change {
            Ok(facts) => facts,
            Err(outcome) => return Ok(Accepted::Finished(outcome)),
        };
        facts.extend([
            PreviewFact::LastDelivery(event.delivery.clone()),
            PreviewFact::Active(Timestamp::now()),
        ]);
        let slug = &preview.record.slug;
        let recorded = self
            .store
            .set_preview_for_delivery(&event.delivery, slug, facts);
        let recorded = self.journal.step("record-request", recorded).await?;
        Ok(recorded.map_or(Accepted::Ended, |_| {
            Accepted::Finished(DeliveryOutcome::Done)
        }))
    }

    /// Returns the commit that a pull request's preview should serve after it was opened, pushed to, closed or reopened;
    /// `None` when the preview should be removed. If GitHub's times do not order such events, GitHub is queried for the
    /// pull request's state.
    async fn desired_head(
        &self,
        delivery: &Delivery,
        event: &PullRequestEvent,
    ) -> Result<Option<Head>, PreviewError> {
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
