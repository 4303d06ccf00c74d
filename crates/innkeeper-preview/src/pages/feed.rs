//! The part of a status that does not follow from the preview's record: the log, and the times of the steps.

use std::collections::VecDeque;
use std::time::Duration;

use innkeeper_model::preview::page::{
    Interruption, MAX_PAGE_LINES, PageLine, PageStatus, PageStep, PageWake, page_text,
};
use innkeeper_model::preview::{CommitSha, PreviewRecord, PreviewState};
use innkeeper_model::{BuildProgress, Failure};
use jiff::{SignedDuration, Timestamp};

/// Time after a failed wake in which no request wakes the guest again, so that programs that try again and again do not, either.
const WAKE_RETRY: SignedDuration = SignedDuration::from_secs(30);

/// The wake of a sleeping guest.
#[derive(Clone, Debug)]
pub(super) struct Wake {
    since: Timestamp,
    /// Its failure, and the time from which a request wakes the guest again.
    pub(super) failed: Option<(Failure, Timestamp)>,
}

impl Wake {
    /// Returns the part of a status.
    pub(super) fn status(&self) -> PageWake {
        PageWake {
            since: self.since,
            retry_at: self.failed.as_ref().map(|(_, retry_at)| *retry_at),
        }
    }
}

/// The log and the steps of the present attempt.
#[derive(Clone, Debug, Default)]
pub(super) struct Feed {
    /// The commit that the steps are about.
    commit: Option<CommitSha>,
    lines: VecDeque<PageLine>,
    /// The number of the last line, also of those that were dropped.
    last: u64,
    /// Time of the last entry of the guest's journal.
    guest_until: Option<Timestamp>,
    /// The same as of the last call of [`Self::begin_guest`]: the journal is read again from its beginning then.
    known_until: Option<Timestamp>,
    pub(super) steps: Vec<PageStep>,
    /// The reason that the app does not answer although it was live.
    pub(super) interruption: Option<Interruption>,
    /// The wake of the guest. The next start of the daemon continues one whose app starts, and forgets any other.
    pub(super) wake: Option<Wake>,
    /// Progress of the build.
    pub(super) progress: Option<BuildProgress>,
}

impl Feed {
    /// Continues a written status. Requests go on waiting for an app that starts after a wake. A guest that is still asleep is
    /// woken by the next request.
    pub(super) fn of(status: &PageStatus) -> Self {
        let starts = status.interruption == Some(Interruption::Restarting);
        let wake = status.wake.filter(|wake| starts && wake.retry_at.is_none());
        let details = status.details.as_ref();
        let lines = details.map(|details| details.log.clone());
        let lines: VecDeque<_> = lines.unwrap_or_default().into();
        Self {
            commit: details.map(|details| details.commit.clone()),
            last: lines.back().map_or(0, |line| line.number),
            guest_until: lines.back().map(|line| line.at),
            known_until: None,
            lines,
            steps: status.steps.clone(),
            interruption: status.interruption,
            wake: wake.map(|wake| Wake {
                since: wake.since,
                failed: None,
            }),
            progress: None,
        }
    }

    /// Records why the app does not answer. A wake in progress ends when it answers.
    pub(super) fn interrupt(&mut self, interruption: Option<Interruption>) {
        if !self.keeps_wake(interruption) {
            self.wake = None;
        }
        self.interruption = interruption;
    }

    /// Reports whether [`Self::interrupt`] changes nothing.
    pub(super) fn is_interrupted(&self, interruption: Option<Interruption>) -> bool {
        self.interruption == interruption && (self.wake.is_none() || self.keeps_wake(interruption))
    }

    fn keeps_wake(&self, interruption: Option<Interruption>) -> bool {
        let is_in_progress = self.wake.as_ref().is_some_and(|wake| wake.failed.is_none());
        is_in_progress && interruption == Some(Interruption::Restarting)
    }

    /// Records that a request wakes the guest.
    pub(super) fn begin_wake(&mut self) {
        self.interruption = Some(Interruption::Asleep);
        self.wake = Some(Wake {
            since: Timestamp::now(),
            failed: None,
        });
    }

    /// Records that the guest is asleep, since it could not be woken or for another reason.
    pub(super) fn fall_asleep(&mut self, failure: Option<Failure>, retry_in: Option<Duration>) {
        self.interruption = Some(Interruption::Asleep);
        let last = self.wake.take();
        self.wake = failure.map(|failure| {
            let now = Timestamp::now();
            let since = last.as_ref().map_or(now, |last| last.since);
            let known = last.and_then(|last| last.failed);
            let known = known.filter(|(known, _)| retry_in.is_none() && *known == failure);
            let retry_in = retry_in.and_then(|time| SignedDuration::try_from(time).ok());
            let retry_at = now + retry_in.unwrap_or(WAKE_RETRY);
            let failed = known.unwrap_or((failure, retry_at));
            Wake {
                since,
                failed: Some(failed),
            }
        });
    }

    /// Reports whether the log has no line.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Adds a line.
    pub(super) fn push(&mut self, at: Timestamp, text: &str) {
        let text = page_text(text);
        if text.trim().is_empty() {
            return;
        }
        self.last += 1;
        self.lines.push_back(PageLine {
            number: self.last,
            at,
            text,
        });
        if self.lines.len() > MAX_PAGE_LINES {
            self.lines.pop_front();
        }
    }

    /// Notes that the guest's journal is read again: the entries up to the last one are known.
    pub(super) fn begin_guest(&mut self) {
        self.known_until = self.guest_until;
    }

    /// Adds the lines of an entry of the guest's journal, unless it is known. New entries may have the same time: journald
    /// gives one to all lines that it receives together.
    pub(super) fn push_of_guest(&mut self, at: Timestamp, text: &str) {
        if self.known_until.is_some_and(|until| at <= until) {
            return;
        }
        self.guest_until = Some(at);
        for line in text.lines() {
            self.push(at, line);
        }
    }

    /// Returns the lines.
    pub(super) fn log(&self) -> Vec<PageLine> {
        self.lines.iter().cloned().collect()
    }

    /// Records the preview's state. Another commit, or an attempt after a result, begins the steps again.
    pub(super) fn enter(&mut self, record: &PreviewRecord) {
        let last = self.steps.last().map(|step| step.state);
        let is_other_commit = self
            .commit
            .as_ref()
            .is_some_and(|commit| *commit != record.wanted_sha);
        let begins_again = last.is_some_and(PreviewState::is_settled)
            && !record.state.is_settled()
            && record.state != PreviewState::Closing;
        if is_other_commit || begins_again {
            self.steps.clear();
        }
        self.commit = Some(record.wanted_sha.clone());
        if self.steps.last().map(|step| step.state) != Some(record.state) {
            self.steps.push(PageStep {
                state: record.state,
                since: since(record),
            });
            self.progress = None;
        }
    }
}

/// Returns the time since when the present state lasts. The record of a former release has none.
pub(super) fn since(record: &PreviewRecord) -> Timestamp {
    record.rollout.state_since.unwrap_or(record.last_activity)
}
