//! Approvals by label: given by somebody who may write, and good for as long as the label is there.

use std::sync::Arc;

use innkeeper_github::client::PullRequestView;
use innkeeper_model::preview::PreviewState;
use innkeeper_model::{Code, Failure};
use innkeeper_store::{Approval, Delivery, Outcome, Preview, PreviewFact, retry_after};
use tracing::info;

use crate::PreviewError;
use crate::desk::Why;
use crate::previews::Inner;

/// How often GitHub is asked whether a label is there that a delivery speaks of otherwise: it answers for a moment as
/// if nothing had happened, and a delivery may be late.
const LOOKS: u32 = 3;

impl Inner {
    /// Takes the label as the approval of the commit that the pull request had when it was given, if somebody
    /// who may write gave it, and it is still there.
    ///
    /// # Errors
    /// When GitHub does not say who may write, or the store cannot be written.
    pub(crate) async fn approve_by_label(
        &self,
        delivery: &Delivery,
        preview: &Preview,
    ) -> Result<Outcome, PreviewError> {
        let event = &delivery.event;
        let record = &preview.record;
        let refuse = |code, text: String| Ok(Outcome::Ignored(Some(Failure::new(code, text))));
        if !record.is_from_fork() {
            return refuse(
                Code::InvalidRequest,
                format!("{} needs no approval", record.slug),
            );
        }
        let permission = self
            .github()?
            .permission(&record.repo, &event.sender)
            .await?;
        if !permission.can_write() {
            let text = format!("{} may not write to {}", event.sender, record.repo);
            return refuse(Code::ApprovalNeeded, text);
        }
        if !self.has_label(preview).await? {
            let text = format!("the label of {} is not there any more", event.sender);
            let gone = Failure::new(Code::ApprovalNeeded, text);
            return Ok(look_again(delivery, &gone).unwrap_or(Outcome::Ignored(Some(gone))));
        }
        self.store
            .approve(&record.slug, &event.head_sha, Approval::Label)
            .await?;
        let text = format!("{} approved {}.", event.sender, event.head_sha.short());
        self.note(&record.slug, text);
        // GitHub may tell of the label before it tells of the push.
        if event.head_sha == record.wanted_sha {
            let facts = vec![
                PreviewFact::State(PreviewState::Queued),
                PreviewFact::Fault(None),
            ];
            self.store.set_preview(&record.slug, facts).await?;
        }
        // The record has it. To build it is not this delivery's: a newer commit must be able to overtake that.
        Ok(Outcome::Done)
    }

    /// Withdraws what a label approved, unless the label that was taken was another one, or it is there again.
    ///
    /// # Errors
    /// When GitHub does not say which labels there are, or the store cannot be written.
    pub(crate) async fn withdraw_by_label(
        &self,
        delivery: &Delivery,
        preview: &Preview,
    ) -> Result<Outcome, PreviewError> {
        if self.has_label(preview).await? {
            let there = Failure::new(Code::InvalidRequest, "the label that approves is there");
            return Ok(look_again(delivery, &there).unwrap_or(Outcome::Done));
        }
        let sender = &delivery.event.sender;
        self.withdraw(preview, &format!("{sender} took it away"))
            .await?;
        Ok(Outcome::Done)
    }

    /// Withdraws what a label approved that is not there, as nobody has told us.
    ///
    /// # Errors
    /// As for [`Self::withdraw_by_label`].
    pub(crate) async fn compare_label(
        self: &Arc<Self>,
        preview: &Preview,
        there: &PullRequestView,
    ) -> Result<(), PreviewError> {
        let label = &self.config.approval_label;
        if !preview.approved_by_label || there.labels.contains(label) {
            return Ok(());
        }
        // The list may be from before the label.
        if !self.has_label(preview).await? && self.is_still(preview).await? {
            self.withdraw(preview, "somebody took it away").await?;
            self.wake(&preview.record.slug, Why::News);
        }
        Ok(())
    }

    async fn has_label(&self, preview: &Preview) -> Result<bool, PreviewError> {
        let Some(pull_request) = preview.record.pull_request() else {
            return Ok(false);
        };
        let view = self.github()?.pull_request(&pull_request).await?;
        Ok(view.is_some_and(|view| view.labels.contains(&self.config.approval_label)))
    }

    /// Records that nothing of a fork is approved any more; its worker stops it.
    async fn withdraw(&self, preview: &Preview, why: &str) -> Result<(), PreviewError> {
        let slug = &preview.record.slug;
        let label = &self.config.approval_label;
        let text = format!("its approval was withdrawn: the label '{label}' is gone, {why}");
        let failure = Failure::new(Code::ApprovalNeeded, text.clone()).with_remedy(format!(
            "The preview is stopped, and keeps its data. The label '{label}', given again by somebody who may write, approves the newest commit."
        ));
        info!(%slug, "{text}");
        self.note(slug, format!("Stopped: {text}."));
        self.store.withdraw_approval(slug, failure).await?;
        Ok(())
    }
}

/// Another look later, unless there were enough.
fn look_again(delivery: &Delivery, seen: &Failure) -> Option<Outcome> {
    (delivery.attempts + 1 < LOOKS).then(|| Outcome::Retry {
        failure: seen.clone(),
        after: retry_after(delivery.attempts + 1),
    })
}
