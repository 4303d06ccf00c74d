//! Approvals by label: set by a user with write access, and valid for as long as the label is set.

use std::sync::Arc;

use innkeeper_github::client::{Github, PullRequestView};
use innkeeper_model::preview::{CommitSha, PreviewState};
use innkeeper_model::{Code, Failure, GuestName};
use innkeeper_store::{
    Approval, Delivery, DeliveryOutcome, Preview, PreviewFact, Store, retry_after,
};
use tracing::info;

use crate::journal::Journal;
use crate::plan::Plan;
use crate::records::is_unchanged;
use crate::reporter::Reporter;
use crate::workers::{WakeReason, Workers};
use crate::{PreviewError, PreviewsConfig};

/// Number of queries for a label whose state contradicts a delivery: GitHub's API lags behind its deliveries, and a
/// delivery may be late.
const ATTEMPTS: u32 = 3;

/// Grants and withdraws approvals of forks' commits.
#[derive(Clone)]
pub(crate) struct Approvals {
    config: Arc<PreviewsConfig>,
    store: Store,
    github: Option<Github>,
    journal: Journal,
    reporter: Reporter,
    workers: Workers,
}

impl Approvals {
    pub(crate) fn new(
        config: Arc<PreviewsConfig>,
        store: Store,
        github: Option<Github>,
        journal: Journal,
        reporter: Reporter,
        workers: Workers,
    ) -> Self {
        Self {
            config,
            store,
            github,
            journal,
            reporter,
            workers,
        }
    }

    /// Takes the label as the approval of the commit that the pull request had when the label was set, if that commit
    /// had been announced as waiting by then, a user with write access set the label, and it is still set.
    ///
    /// # Errors
    /// GitHub does not return the sender's permission, or the store cannot be written.
    pub(crate) async fn approve_by_label(
        &self,
        delivery: &Delivery,
        preview: &Preview,
    ) -> Result<DeliveryOutcome, PreviewError> {
        let Some(event) = delivery.event.as_pull_request() else {
            return Ok(DeliveryOutcome::Ignored(None));
        };
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
            let text = format!("the label that {} set is gone", event.sender);
            let gone = Failure::new(Code::ApprovalNeeded, text);
            return Ok(query_again(delivery, &gone).unwrap_or(DeliveryOutcome::Ignored(Some(gone))));
        }
        let Some(preview) = self.reporter.after_report(&record.slug).await? else {
            return Ok(DeliveryOutcome::Ignored(None));
        };
        if !was_announced(&preview, &event.head_sha, delivery.seq) {
            let refused = self.refuse_label(&preview, &event.head_sha).await?;
            return Ok(DeliveryOutcome::Ignored(Some(refused)));
        }
        let record = &preview.record;
        self.store
            .approve(&record.slug, &event.head_sha, Approval::Label)
            .await?;
        let text = format!("{} approved {}.", event.sender, event.head_sha.short());
        self.journal.note(&record.slug, text);
        if event.head_sha == record.wanted_sha {
            let facts = vec![
                PreviewFact::State(PreviewState::Queued),
                PreviewFact::Fault(None),
            ];
            self.store.set_preview(&record.slug, facts).await?;
        }
        // The record has it. The build is not part of this delivery: a newer commit must be able to supersede it.
        Ok(DeliveryOutcome::Done)
    }

    /// Records, for the comment on the pull request, that a label approved no commit: this one was pushed after the
    /// comment was written.
    async fn refuse_label(
        &self,
        preview: &Preview,
        sha: &CommitSha,
    ) -> Result<Failure, PreviewError> {
        let slug = &preview.record.slug;
        let refused = not_announced(&self.config.approval_label, slug, sha);
        info!(%slug, "{}", refused.message);
        self.journal.note(slug, format!("{}.", refused.message));
        // A commit that runs or has failed keeps its own fault.
        if Plan::of(preview).needs_approval() {
            let fault = vec![PreviewFact::Fault(Some(refused.clone()))];
            self.store.set_preview(slug, fault).await?;
            self.reporter.report_soon(slug);
        }
        Ok(refused)
    }

    /// Withdraws an approval by label, unless the label that was removed was another one, or it is set again.
    ///
    /// # Errors
    /// GitHub does not return the labels, or the store cannot be written.
    pub(crate) async fn withdraw_by_label(
        &self,
        delivery: &Delivery,
        preview: &Preview,
    ) -> Result<DeliveryOutcome, PreviewError> {
        if self.has_label(preview).await? {
            let there = Failure::new(Code::InvalidRequest, "the label that approves is set");
            return Ok(query_again(delivery, &there).unwrap_or(DeliveryOutcome::Done));
        }
        let sender = delivery.event.as_pull_request().map(|event| &event.sender);
        let why = sender.map_or_else(
            || "it was removed".to_owned(),
            |sender| format!("{sender} removed it"),
        );
        self.withdraw(preview, &why).await?;
        Ok(DeliveryOutcome::Done)
    }

    /// Withdraws the approval by a label whose removal was not delivered.
    ///
    /// # Errors
    /// As for [`Self::withdraw_by_label`].
    pub(crate) async fn compare_label(
        &self,
        preview: &Preview,
        there: &PullRequestView,
    ) -> Result<(), PreviewError> {
        let label = &self.config.approval_label;
        if !preview.approved_by_label || there.labels.contains(label) {
            return Ok(());
        }
        // The list may be older than the label.
        if !self.has_label(preview).await? && is_unchanged(&self.store, preview).await? {
            self.withdraw(preview, "it was removed").await?;
            self.workers.wake(&preview.record.slug, WakeReason::Change);
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

    fn github(&self) -> Result<&Github, PreviewError> {
        self.github.as_ref().ok_or(PreviewError::NoCredentials)
    }

    /// Records that no commit of the preview is approved any more; its worker stops it.
    async fn withdraw(&self, preview: &Preview, why: &str) -> Result<(), PreviewError> {
        let slug = &preview.record.slug;
        let label = &self.config.approval_label;
        let text = format!("its approval was withdrawn: the label '{label}' is gone, {why}");
        let failure = Failure::new(Code::ApprovalNeeded, text.clone()).with_remedy(format!(
            "The preview is stopped, and keeps its data. The label '{label}', set again by a user with write access, approves the newest commit."
        ));
        info!(%slug, "{text}");
        self.journal.note(slug, format!("Stopped: {text}."));
        self.store.withdraw_approval(slug, failure).await?;
        Ok(())
    }
}

/// Reports whether the label's commit had been announced on GitHub as waiting for approval before the label's delivery
/// arrived. The order of arrival decides, since clocks may be wrong.
fn was_announced(preview: &Preview, sha: &CommitSha, seq: i64) -> bool {
    preview.announced_sha.as_ref() == Some(sha) && seq > preview.announced_after
}

fn not_announced(label: &str, slug: &GuestName, sha: &CommitSha) -> Failure {
    let text = format!(
        "the label '{label}' approved nothing: {sha} was not yet shown here as waiting for approval when it was given"
    );
    Failure::new(Code::ApprovalNeeded, text).with_remedy(format!(
        "Look at {sha}, then label again for {sha}: take the label off and put it on. Or run `preview approve {slug} --sha {sha}` on the host."
    ))
}

/// Returns the preview's fault if it is the refusal of a label for this commit. It outlives the delivery that brings the
/// commit, since that may arrive after the label.
pub(crate) fn refusal_of(preview: &Preview, label: &str, sha: &CommitSha) -> Option<Failure> {
    let refused = not_announced(label, &preview.record.slug, sha);
    preview
        .record
        .fault
        .clone()
        .filter(|fault| *fault == refused)
}

/// Returns the outcome that retries the query, unless all attempts were used.
pub(crate) fn query_again(delivery: &Delivery, seen: &Failure) -> Option<DeliveryOutcome> {
    (delivery.attempts + 1 < ATTEMPTS).then(|| DeliveryOutcome::Retry {
        failure: seen.clone(),
        after: retry_after(delivery.attempts + 1),
    })
}

#[cfg(test)]
mod tests;
