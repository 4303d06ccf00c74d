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
    let reason = reason(preview)?;
    let left = grace.saturating_sub(now.since(preview.removal_running?));
    (preview.desired == Presence::Present).then_some(PendingRemoval {
        reason,
        in_seconds: left.as_secs(),
    })
}

/// Returns the reason for which a preview is to be removed at the end of its grace period, if it is.
pub(crate) fn reason(preview: &Preview) -> Option<RemovalReason> {
    preview.removal_running?;
    match preview.record.state {
        PreviewState::Dropped => Some(RemovalReason::ConfigMissing),
        // A newer commit is being looked at, or could not be.
        _ if preview.record.pull_request.is_some() => None,
        _ => Some(RemovalReason::BranchGone),
    }
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
