//! Approvals by label: given by somebody who may write, and good for as long as the label is there.

use std::sync::Arc;

use innkeeper_github::client::PullRequestView;
use innkeeper_model::preview::{CommitSha, PreviewState};
use innkeeper_model::{Code, Failure, GuestName};
use innkeeper_store::{Approval, Delivery, DeliveryOutcome, Preview, PreviewFact, retry_after};
use tracing::info;

use crate::PreviewError;
use crate::aim::{Aim, aim};
use crate::desk::Why;
use crate::previews::Inner;

/// How often GitHub is asked whether a label is there that a delivery speaks of otherwise: it answers for a moment as
/// if nothing had happened, and a delivery may be late.
const LOOKS: u32 = 3;

impl Inner {
    /// Takes the label as the approval of the commit that the pull request had when it was given, if that commit had
    /// been announced as waiting by then, somebody who may write gave the label, and it is still there.
    ///
    /// # Errors
    /// When GitHub does not say who may write, or the store cannot be written.
    pub(crate) async fn approve_by_label(
        self: &Arc<Self>,
        delivery: &Delivery,
        preview: &Preview,
    ) -> Result<DeliveryOutcome, PreviewError> {
        let event = &delivery.event;
        let record = &preview.record;
        let refuse =
            |code, text: String| Ok(DeliveryOutcome::Ignored(Some(Failure::new(code, text))));
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
            return Ok(look_again(delivery, &gone).unwrap_or(DeliveryOutcome::Ignored(Some(gone))));
        }
        let Some(preview) = self.after_report(&record.slug).await? else {
            return Ok(DeliveryOutcome::Ignored(None));
        };
        if !was_announced(&preview, delivery) {
            let refused = self.refuse_label(&preview, &event.head_sha).await?;
            return Ok(DeliveryOutcome::Ignored(Some(refused)));
        }
        let record = &preview.record;
        self.store
            .approve(&record.slug, &event.head_sha, Approval::Label)
            .await?;
        let text = format!("{} approved {}.", event.sender, event.head_sha.short());
        self.note(&record.slug, text);
        if event.head_sha == record.wanted_sha {
            let facts = vec![
                PreviewFact::State(PreviewState::Queued),
                PreviewFact::Fault(None),
            ];
            self.store.set_preview(&record.slug, facts).await?;
        }
        // The record has it. To build it is not this delivery's: a newer commit must be able to overtake that.
        Ok(DeliveryOutcome::Done)
    }

    /// Records, for the comment on the pull request, that a label approved nothing, as the commit was pushed after what
    /// the comment showed.
    async fn refuse_label(
        self: &Arc<Self>,
        preview: &Preview,
        sha: &CommitSha,
    ) -> Result<Failure, PreviewError> {
        let slug = &preview.record.slug;
        let refused = not_announced(&self.config.approval_label, slug, sha);
        info!(%slug, "{}", refused.message);
        self.note(slug, format!("{}.", refused.message));
        // What runs or has failed keeps its own cause.
        if aim(preview) == Aim::AwaitApproval {
            let fault = vec![PreviewFact::Fault(Some(refused.clone()))];
            self.store.set_preview(slug, fault).await?;
            self.report_soon(slug);
        }
        Ok(refused)
    }

    /// Withdraws what a label approved, unless the label that was taken was another one, or it is there again.
    ///
    /// # Errors
    /// When GitHub does not say which labels there are, or the store cannot be written.
    pub(crate) async fn withdraw_by_label(
        &self,
        delivery: &Delivery,
        preview: &Preview,
    ) -> Result<DeliveryOutcome, PreviewError> {
        if self.has_label(preview).await? {
            let there = Failure::new(Code::InvalidRequest, "the label that approves is there");
            return Ok(look_again(delivery, &there).unwrap_or(DeliveryOutcome::Done));
        }
        let sender = &delivery.event.sender;
        self.withdraw(preview, &format!("{sender} took it away"))
            .await?;
        Ok(DeliveryOutcome::Done)
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

/// Whether the commit that a label is for had been announced on GitHub as waiting for approval before the label's
/// delivery arrived. The order of arrival decides, since clocks may be wrong.
fn was_announced(preview: &Preview, delivery: &Delivery) -> bool {
    preview.announced_sha.as_ref() == Some(&delivery.event.head_sha)
        && delivery.seq > preview.announced_after
}

fn not_announced(label: &str, slug: &GuestName, sha: &CommitSha) -> Failure {
    let text = format!(
        "the label '{label}' approved nothing: {sha} was not yet shown here as waiting for approval when it was given"
    );
    Failure::new(Code::ApprovalNeeded, text).with_remedy(format!(
        "Look at {sha}, then label again for {sha}: take the label off and put it on. Or run `preview approve {slug} --sha {sha}` on the host."
    ))
}

/// The refusal of a label that concerns this commit, if that is the preview's fault. It outlives the delivery that
/// the commit arrives with, since that may come after the label.
pub(crate) fn refusal_of(preview: &Preview, label: &str, sha: &CommitSha) -> Option<Failure> {
    let refused = not_announced(label, &preview.record.slug, sha);
    preview
        .record
        .fault
        .clone()
        .filter(|fault| *fault == refused)
}

/// Another look later, unless there were enough.
fn look_again(delivery: &Delivery, seen: &Failure) -> Option<DeliveryOutcome> {
    (delivery.attempts + 1 < LOOKS).then(|| DeliveryOutcome::Retry {
        failure: seen.clone(),
        after: retry_after(delivery.attempts + 1),
    })
}
