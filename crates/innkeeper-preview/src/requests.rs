//! Requests for previews: labels, drafts that become ready for review, and their withdrawal.

use std::sync::Arc;

use innkeeper_github::client::{Github, PullRequestView};
use innkeeper_model::preview::{
    PrAction, PreviewState, PullRequest, PullRequestEvent, slug_candidates, webhook_slug,
};
use innkeeper_model::{Code, Failure, GuestName};
use innkeeper_store::{
    Delivery, DeliveryOutcome, NewPreview, Presence, Preview, PreviewFact, PreviewRequest, Store,
};
use tracing::info;

use crate::admission::{Admission, Drafts};
use crate::approvals::query_again;
use crate::journal::Journal;
use crate::workers::{WakeReason, Workers};
use crate::{PreviewError, PreviewsConfig};

/// The facts that an event requests, or how its delivery ends without any.
pub(crate) type Change = Result<Vec<PreviewFact>, DeliveryOutcome>;

/// Decides about previews that are not requested by each open pull request.
#[derive(Clone)]
pub(crate) struct Requests {
    pub(crate) config: Arc<PreviewsConfig>,
    pub(crate) store: Store,
    pub(crate) github: Option<Github>,
    pub(crate) journal: Journal,
    pub(crate) workers: Workers,
}

/// Returns the candidate slugs of a pull request's preview.
pub(crate) fn slugs_of(pull_request: &PullRequest) -> Vec<GuestName> {
    let wanted = webhook_slug(&pull_request.repo, pull_request.number);
    let identity = pull_request.to_string().to_ascii_lowercase();
    slug_candidates(&wanted, &identity).collect()
}

/// Returns the preview that a pull request's current state requests.
pub(crate) fn preview_of(view: &PullRequestView) -> NewPreview {
    NewPreview {
        repo: view.pull_request.repo.clone(),
        number: Some(view.pull_request.number),
        branch: view.head_branch.clone(),
        head_repo: view.head_repo.clone(),
        wanted_sha: view.head_sha.clone(),
    }
}

/// Returns the facts of a preview that is wanted with a pull request's current head.
pub(crate) fn wanted(view: &PullRequestView) -> Vec<PreviewFact> {
    vec![
        PreviewFact::Desired(Presence::Present),
        PreviewFact::Head {
            repo: view.head_repo.clone(),
            branch: view.head_branch.clone(),
            sha: view.head_sha.clone(),
        },
        PreviewFact::State(PreviewState::Queued),
        PreviewFact::Fault(None),
    ]
}

impl Requests {
    fn admission(&self) -> &Admission {
        &self.config.admission
    }

    /// Reports whether an event of a pull request without a preview requests one, depending on the pull request's state on
    /// GitHub.
    pub(crate) fn concerns(&self, event: &PullRequestEvent) -> bool {
        let by_label = self.admission().request_label.is_some();
        match &event.action {
            PrAction::Opened | PrAction::Synchronize | PrAction::Reopened => by_label,
            PrAction::Labeled(label) => self.admission().is_request(label),
            PrAction::ReadyForReview => self.admission().drafts != Drafts::On,
            _ => false,
        }
    }

    /// Records the preview of a pull request without one if its state on GitHub requests it, and returns how the delivery
    /// ends; `None` if its end is recorded.
    ///
    /// # Errors
    /// GitHub does not answer, or the store cannot be written.
    pub(crate) async fn act(
        &self,
        delivery: &Delivery,
        event: &PullRequestEvent,
    ) -> Result<Option<DeliveryOutcome>, PreviewError> {
        let view = match self.look_up(delivery, event).await? {
            Ok(view) => view,
            Err(outcome) => return Ok(Some(outcome)),
        };
        if let Some(refusal) = self.admission().refusal(view.draft, &view.labels) {
            return Ok(Some(DeliveryOutcome::Ignored(Some(refusal))));
        }
        let claimed = self.store.claim_for_delivery(
            delivery.event.id(),
            preview_of(&view),
            slugs_of(&event.pull_request),
            self.admission().request(),
        );
        let claimed = self.journal.step("record-request", claimed).await?;
        if let Some(preview) = claimed {
            let slug = &preview.record.slug;
            info!(%slug, action = %event.action, "preview requested");
            self.workers.wake(slug, WakeReason::Change);
        }
        Ok(None)
    }

    /// Returns the state of an open pull request on GitHub, or how the delivery ends without one. A label that GitHub's API
    /// does not show yet is queried again.
    async fn look_up(
        &self,
        delivery: &Delivery,
        event: &PullRequestEvent,
    ) -> Result<Result<PullRequestView, DeliveryOutcome>, PreviewError> {
        let view = self.github()?.pull_request(&event.pull_request).await?;
        let Some(view) = view.filter(|view| view.open) else {
            return Ok(Err(DeliveryOutcome::Ignored(None)));
        };
        if let PrAction::Labeled(label) = &event.action
            && !view.labels.contains(label)
        {
            let text = format!("the label '{label}' is gone");
            let gone = Failure::new(Code::PreviewNotRequested, text);
            let outcome = query_again(delivery, &gone);
            return Ok(Err(outcome.unwrap_or(DeliveryOutcome::Ignored(Some(gone)))));
        }
        Ok(Ok(view))
    }

    /// Returns the facts that an event of an existing preview's pull request requests, or how the delivery ends without any.
    /// `None` for events without a request or its withdrawal.
    ///
    /// # Errors
    /// GitHub does not answer.
    pub(crate) async fn change(
        &self,
        delivery: &Delivery,
        event: &PullRequestEvent,
        preview: &Preview,
    ) -> Result<Option<Change>, PreviewError> {
        match &event.action {
            PrAction::Labeled(label) if self.admission().is_request(label) => {
                let mut facts = match self.resume(delivery, event, preview).await? {
                    Ok(facts) => facts,
                    Err(outcome) => return Ok(Some(Err(outcome))),
                };
                if preview.request.is_none() {
                    facts.push(PreviewFact::Request(self.admission().request()));
                }
                Ok(Some(Ok(facts)))
            }
            PrAction::ReadyForReview if self.admission().drafts != Drafts::On => {
                self.resume(delivery, event, preview).await.map(Some)
            }
            PrAction::ConvertedToDraft if !self.admission().keeps(true, preview.request) => {
                let view = self.github()?.pull_request(&event.pull_request).await?;
                let is_draft = view.is_some_and(|view| view.draft);
                Ok(Some(Ok(self.dismissed(
                    preview,
                    is_draft,
                    "its pull request is a draft",
                ))))
            }
            PrAction::Unlabeled => self.withdraw(event, preview).await,
            _ => Ok(None),
        }
    }

    /// Returns the facts of a preview that is being removed and is wanted again; none for another one.
    async fn resume(
        &self,
        delivery: &Delivery,
        event: &PullRequestEvent,
        preview: &Preview,
    ) -> Result<Change, PreviewError> {
        let view = match self.look_up(delivery, event).await? {
            Ok(view) => view,
            Err(outcome) => return Ok(Err(outcome)),
        };
        if preview.desired == Presence::Present {
            return Ok(Ok(Vec::new()));
        }
        Ok(match self.admission().refusal(view.draft, &view.labels) {
            Some(refusal) => Err(DeliveryOutcome::Ignored(Some(refusal))),
            None => Ok(wanted(&view)),
        })
    }

    /// Returns the removal of a preview whose request by label was withdrawn.
    async fn withdraw(
        &self,
        event: &PullRequestEvent,
        preview: &Preview,
    ) -> Result<Option<Change>, PreviewError> {
        if !self.depends_on_label(preview) {
            return Ok(None);
        }
        let view = self.github()?.pull_request(&event.pull_request).await?;
        let is_gone = view.is_some_and(|view| !self.admission().is_requested(&view.labels));
        let facts = self.dismissed(preview, is_gone, "the label that requested it is gone");
        Ok((!facts.is_empty()).then_some(Ok(facts)))
    }

    fn depends_on_label(&self, preview: &Preview) -> bool {
        self.admission().request_label.is_some() && preview.request == Some(PreviewRequest::Label)
    }

    fn dismissed(&self, preview: &Preview, applies: bool, reason: &str) -> Vec<PreviewFact> {
        if !applies || preview.desired == Presence::Absent {
            return Vec::new();
        }
        let slug = &preview.record.slug;
        info!(%slug, "the preview is removed: {reason}");
        self.journal.note(slug, format!("Removed: {reason}."));
        vec![PreviewFact::Desired(Presence::Absent)]
    }

    /// Returns why an existing preview is to be removed, by its pull request's state in a list of GitHub's.
    pub(crate) fn outdated(
        &self,
        preview: &Preview,
        view: &PullRequestView,
    ) -> Option<&'static str> {
        if !self.admission().keeps(view.draft, preview.request) {
            return Some("its pull request is a draft");
        }
        let is_requested = self.admission().is_requested(&view.labels);
        (self.depends_on_label(preview) && !is_requested)
            .then_some("the label that requested it is gone")
    }

    /// Returns the reason that a preview which is being removed is not wanted again, if that is so.
    ///
    /// # Errors
    /// GitHub does not answer.
    pub(crate) async fn refusal(
        &self,
        event: &PullRequestEvent,
    ) -> Result<Option<Failure>, PreviewError> {
        if self.admission().request_label.is_none() {
            return Ok(self.admission().refusal_of_draft(event.draft));
        }
        let view = self.github()?.pull_request(&event.pull_request).await?;
        Ok(match view {
            Some(view) => self.admission().refusal(view.draft, &view.labels),
            None => self.admission().refusal(event.draft, &[]),
        })
    }

    fn github(&self) -> Result<&Github, PreviewError> {
        self.github.as_ref().ok_or(PreviewError::NoCredentials)
    }
}

#[cfg(test)]
mod tests;
