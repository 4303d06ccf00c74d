//! Previews whose file or branch is gone: the remaining grace period, for lists and diagnosis.

use std::time::Duration;

use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::preview::{PendingRemoval, PreviewState, RemovalReason};
use innkeeper_store::{Presence, Preview, RunningTime, Store};

use crate::PreviewError;

/// Returns the removal of a preview at the end of its grace period, if it is to be removed.
pub(crate) fn pending(
    preview: &Preview,
    now: RunningTime,
    grace: Duration,
) -> Option<PendingRemoval> {
    let since = preview.removal_running?;
    let reason = match preview.record.state {
        PreviewState::Dropped => RemovalReason::ConfigMissing,
        // A new commit is being looked at.
        _ if preview.record.pull_request.is_some() => return None,
        _ => RemovalReason::BranchGone,
    };
    let left = grace.saturating_sub(now.since(since));
    (preview.desired == Presence::Present).then_some(PendingRemoval {
        reason,
        in_seconds: left.as_secs(),
    })
}

/// Returns `innkeeper doctor`'s findings on previews that are to be removed.
///
/// # Errors
/// The store cannot be read.
pub(crate) async fn checks(store: &Store, grace: Duration) -> Result<Vec<Check>, PreviewError> {
    let now = store.running_time().await?;
    let mut checks = Vec::new();
    for preview in store.previews().await? {
        let Some(removal) = pending(&preview, now, grace) else {
            continue;
        };
        let slug = &preview.record.slug;
        let keep = match removal.reason {
            RemovalReason::ConfigMissing => "push a commit with the file",
            RemovalReason::BranchGone => "push the branch again",
        };
        checks.push(Check {
            subject: format!("preview {slug}"),
            verdict: Verdict::Warning,
            finding: removal.to_string(),
            remedy: Some(format!(
                "`preview destroy {slug}` removes it now. To keep it, {keep}."
            )),
        });
    }
    Ok(checks)
}
