//! Derives the plan for a preview from its record, and decides the next action of its worker ([`schedule`]): pure
//! functions.
//!
//! ```text
//!  desired?  no ────────────────────────────────► Remove
//!     │ yes
//!  expired, stopped, or without its file?  yes ─► KeepStopped
//!     │ no
//!  fork without approval of this commit?  yes ──► RequestApproval, then AwaitApproval
//!     │ no
//!  live, or failed for good?  yes ──────────────► Maintain, MaintainPrevious
//!     │ anything else, also after a crash
//!     └─────────────────────────────────────────► BringUp
//! ```

use std::time::Duration;

use innkeeper_model::Code;
use innkeeper_model::preview::{CommitSha, PreviewState};
use innkeeper_store::{Delivery, NextDelivery, Presence, Preview};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::retry::recheck_delay;
use crate::workers::Wakeup;

/// Plan for a preview, derived from its record alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Remove the preview with everything that belongs to it.
    Remove,
    /// Keep a preview down that expired, that a command stopped, or whose commit has no `preview-config.nix` any more.
    KeepStopped,
    /// Announce that the wanted commit waits for approval, if it has a `preview-config.nix`. No file of the commit is read
    /// before.
    RequestApproval,
    /// The approval was requested. Keep the commit that was approved before up, if any.
    AwaitApproval,
    /// Bring the wanted commit up.
    BringUp,
    /// Keep the wanted commit up.
    Maintain,
    /// Keep the last good version up, if any: the wanted commit failed for good.
    MaintainPrevious,
}

impl Plan {
    /// Returns the plan for a record.
    pub(crate) fn of(preview: &Preview) -> Self {
        let record = &preview.record;
        if preview.desired == Presence::Absent {
            return Self::Remove;
        }
        if record.state.keeps_only_data() {
            return Self::KeepStopped;
        }
        if record.is_from_fork() && record.approved_sha.as_ref() != Some(&record.wanted_sha) {
            return match record.state {
                PreviewState::WaitingForApproval => Self::AwaitApproval,
                _ => Self::RequestApproval,
            };
        }
        match record.state {
            PreviewState::Live if record.live_sha.as_ref() == Some(&record.wanted_sha) => {
                Self::Maintain
            }
            PreviewState::Failed => Self::MaintainPrevious,
            _ => Self::BringUp,
        }
    }

    /// Reports whether the preview is as desired, so that only a periodic check executes the plan.
    pub(crate) fn is_settled(self) -> bool {
        match self {
            Self::KeepStopped | Self::AwaitApproval | Self::Maintain | Self::MaintainPrevious => {
                true
            }
            Self::Remove | Self::RequestApproval | Self::BringUp => false,
        }
    }

    /// Reports whether the wanted commit lacks its approval.
    pub(crate) fn needs_approval(self) -> bool {
        matches!(self, Self::RequestApproval | Self::AwaitApproval)
    }

    /// Reports whether a successful check proves the recorded fault outdated. The cause of a failed commit and a
    /// missing approval outlast checks.
    pub(crate) fn clears_fault(self, preview: &Preview) -> bool {
        let Some(fault) = &preview.record.fault else {
            return false;
        };
        match self {
            // The missing file stays missing.
            Self::KeepStopped => fault.code != Code::ConfigMissing,
            Self::Maintain => true,
            Self::AwaitApproval => fault.code != Code::ApprovalNeeded,
            Self::MaintainPrevious | Self::Remove | Self::RequestApproval | Self::BringUp => false,
        }
    }
}

/// Part of a record on which the execution of a plan depends: when it changes, the execution is canceled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Desired {
    presence: Presence,
    sha: CommitSha,
    approved: Option<CommitSha>,
}

impl Desired {
    pub(crate) fn of(preview: &Preview) -> Self {
        Self {
            presence: preview.desired,
            sha: preview.record.wanted_sha.clone(),
            approved: preview.record.approved_sha.clone(),
        }
    }
}

/// A worker's memory between its actions. Losing it in a restart of the daemon is harmless.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// Number of checks that are done.
    checks: u64,
    /// Number of commands that are carried out.
    commands: u64,
    /// Number of consecutive failures that are retried.
    attempts: u32,
    /// Time of the next retry. Void when something else is desired.
    retry: Option<(Desired, Instant)>,
}

/// Result of an execution, as far as the schedule depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Executed {
    /// It succeeded.
    Done,
    /// It failed for a cause that may pass.
    Retry {
        /// Delay before the next attempt.
        after: Duration,
    },
    /// It failed for good.
    Failed,
}

impl Memory {
    /// Forgets failures: a delivery starts over.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
        self.retry = None;
    }

    /// Records that an execution ended without being canceled. Returns the number of failures before it.
    pub(crate) fn end_execution(&mut self, preview: &Preview, wakeup: Wakeup) -> u32 {
        let is_commanded = self.commands != wakeup.commands;
        self.commands = wakeup.commands;
        let is_retry = self
            .retry
            .take()
            .is_some_and(|(desired, _)| desired == Desired::of(preview));
        if !is_retry || is_commanded {
            self.attempts = 0;
        }
        self.attempts
    }

    /// Schedules what follows an execution that ended. `interval` is the time between periodic checks.
    pub(crate) fn schedule_after(
        &mut self,
        preview: &Preview,
        plan: Plan,
        wakeup: Wakeup,
        executed: Executed,
        interval: Duration,
        now: Instant,
    ) {
        let delay = match executed {
            Executed::Done => {
                self.checks = wakeup.checks;
                self.attempts = 0;
                return;
            }
            Executed::Retry { after } => after,
            // The record has the commit's failure, and so another plan.
            Executed::Failed if plan == Plan::BringUp => {
                self.checks = wakeup.checks;
                return;
            }
            // The plan stays the same. Each attempt may set the app up again or send requests, so it must not repeat
            // without a delay. The check stays due.
            Executed::Failed => recheck_delay(interval, self.attempts + 1),
        };
        self.attempts += 1;
        self.retry = Some((Desired::of(preview), now + delay));
    }
}

/// The current time by both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// By the monotonic clock.
    pub(crate) instant: Instant,
    /// By the wall clock.
    pub(crate) time: Timestamp,
}

impl Now {
    pub(crate) fn read() -> Self {
        Self {
            instant: Instant::now(),
            time: Timestamp::now(),
        }
    }

    fn instant_of(self, time: Timestamp) -> Instant {
        let wait = time.duration_since(self.time);
        self.instant + Duration::try_from(wait).unwrap_or_default()
    }
}

/// The next action of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// End: the preview is gone.
    Exit,
    /// Act on a delivery.
    Act(Box<Delivery>),
    /// Execute the plan.
    Execute(Plan),
    /// Sleep until a wakeup, or until then.
    Sleep(Option<Instant>),
}

/// Decides the next action of a worker: a delivery first, then the record's plan, unless that waits for its retry, for a
/// delivery's retry, or for the next check. A command waits for none of these.
pub(crate) fn schedule(
    preview: Option<&Preview>,
    delivery: NextDelivery,
    wakeup: Wakeup,
    memory: &Memory,
    now: Now,
) -> Next {
    let Some(preview) = preview else {
        return Next::Exit;
    };
    let delivery = match delivery {
        NextDelivery::Process(delivery) => return Next::Act(delivery),
        NextDelivery::WaitUntil(until) => Some(now.instant_of(until)),
        NextDelivery::None => None,
    };
    let plan = Plan::of(preview);
    let desired = Desired::of(preview);
    let retry = memory
        .retry
        .as_ref()
        .filter(|(of, retry)| *of == desired && *retry > now.instant)
        .map(|(_, retry)| *retry);
    // A settled preview is checked whatever its deliveries wait for.
    let is_delayed = retry.is_some() || delivery.is_some() && !plan.is_settled();
    let is_idle = plan.is_settled() && wakeup.checks == memory.checks;
    let is_commanded = wakeup.commands != memory.commands;
    if !is_commanded && (is_delayed || is_idle) {
        return Next::Sleep([retry, delivery].into_iter().flatten().min());
    }
    Next::Execute(plan)
}

#[cfg(test)]
mod tests;
