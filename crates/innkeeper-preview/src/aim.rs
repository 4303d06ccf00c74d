//! What is left to do for a preview: a pure function of its record.

use innkeeper_model::preview::PreviewState;
use innkeeper_store::{Presence, Preview};

/// What is left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// Remove everything of it.
    Remove,
    /// Keep it stopped: nobody used it for too long.
    KeepStopped,
    /// Say that its commit waits for an approval. Nothing of the commit is read before.
    AwaitApproval,
    /// Bring its wanted commit up.
    BringUp,
    /// It is as wanted; see that it stays so.
    LookAfter,
    /// Its wanted commit could not be brought up, and would not be now. See that the last good one, if there
    /// is one, stays up.
    Rest,
}

/// What is left to do for a preview.
///
/// ```text
///  wanted?  no ─────────────────────────────► Remove
///     │ yes
///  expired? yes ────────────────────────────► KeepStopped
///     │ no
///  fork without approval of this commit? yes ► AwaitApproval
///     │ no
///  live, or failed for good? ────────────────► LookAfter, Rest
///     │ anything else, also what a crash left
///     └──────────────────────────────────────► BringUp
/// ```
#[must_use]
pub fn aim(preview: &Preview) -> Aim {
    let record = &preview.record;
    if preview.desired == Presence::Absent {
        return Aim::Remove;
    }
    if record.state == PreviewState::Expired {
        return Aim::KeepStopped;
    }
    if record.is_from_fork() && record.approved_sha.as_ref() != Some(&record.wanted_sha) {
        return Aim::AwaitApproval;
    }
    match record.state {
        PreviewState::Live if record.live_sha.as_ref() == Some(&record.wanted_sha) => {
            Aim::LookAfter
        }
        PreviewState::Failed => Aim::Rest,
        _ => Aim::BringUp,
    }
}
