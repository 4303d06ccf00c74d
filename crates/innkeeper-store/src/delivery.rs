//! Deliveries and their rules: which event supersedes which, and which is processed next.
//!
//! An event is acknowledged to GitHub once it is on disk here, and GitHub never sends it again on its own. So each delivery
//! is kept until it was processed, and is processed once.
//!
//! The order within a pull request is that of arrival. An event that decides whether the preview should exist is an
//! *intent*. It supersedes all earlier intents whose processing has not ended:
//!
//! | arrives | earlier pending intents | after `closed` |
//! | --- | --- | --- |
//! | `opened`, `synchronize` | superseded | ignored as stale |
//! | `reopened` | superseded | counts |
//! | `closed` | superseded | superseded |
//!
//! An intent that is older than the newest recorded one, by GitHub's own times, is stale in any case: its first delivery
//! was lost. Where those times do not order two intents, the pull request's state on GitHub decides
//! ([`Store::latest_tied_time`](crate::Store::latest_tied_time)).
//!
//! Other events, such as labels and commands, neither supersede nor are superseded: an approval and its withdrawal are two
//! facts, and both are processed in order. A command does not wait for the execution of an intent whose wish is recorded.

use std::time::Duration;

use innkeeper_model::preview::api::DeliveryState;
use innkeeper_model::preview::{
    DeliveryEvent, PrAction, PullRequestEvent, RepoName, certainly_before,
};
use innkeeper_model::{Backoff, Failure, GuestName};
use jiff::{SignedDuration, Timestamp};

use crate::preview::Presence;

/// The maximum backoff of a delivery. GitHub's rate limits are by the hour.
pub(crate) const MAX_BACKOFF: SignedDuration = SignedDuration::from_hours(3);

/// The record of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The place in the order of arrival. It only grows.
    pub seq: i64,
    /// The event. Its id is GitHub's id of the delivery, and ours.
    pub event: DeliveryEvent,
    /// Time of arrival.
    pub received_at: Timestamp,
    /// The state. Never [`DeliveryState::Running`]: work in progress is not recorded, since a crash would make it
    /// untrue.
    pub state: DeliveryState,
    /// The number of attempts that ended, in whatever way.
    pub attempts: u32,
    /// The earliest time of the next attempt; `None` for at once.
    pub not_before: Option<Timestamp>,
    /// Why the last attempt failed, or why the delivery was ignored.
    pub failure: Option<Failure>,
    /// Time when the delivery reached its final state.
    pub finished_at: Option<Timestamp>,
}

/// A delivery whose signature was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDelivery {
    /// The event.
    pub event: DeliveryEvent,
    /// Time of arrival.
    pub received_at: Timestamp,
    /// Candidate slugs for the pull request's preview, the best one first. If the event requests a preview and none
    /// exists, the first free slug is taken together with the delivery. If empty, no preview is recorded.
    pub slugs: Vec<GuestName>,
}

/// The result of recording a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// The delivery is on disk and will be processed. One that had failed is processed again.
    New {
        /// The slug of the pull request's preview, if it has one.
        slug: Option<GuestName>,
    },
    /// The delivery was on disk already, and had not failed.
    Duplicate {
        /// The slug of the pull request's preview, if it has one.
        slug: Option<GuestName>,
        /// True if it was processed or ignored; false if it is pending.
        is_finished: bool,
    },
    /// The delivery is on disk as ignored: a newer one had already arrived. After `closed`, only `reopened` counts.
    Stale {
        /// The slug of the pull request's preview, if it still has one.
        slug: Option<GuestName>,
    },
    /// The delivery was not recorded: every candidate slug belongs to another preview or to a guest.
    SlugsTaken,
}

/// The delivery of a pull request to process next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextDelivery {
    /// Process this one.
    Process(Box<Delivery>),
    /// Wait until this time, or until another delivery arrives.
    WaitUntil(Timestamp),
    /// No delivery is pending.
    None,
}

/// The result of processing a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// It was processed.
    Done,
    /// It required no work; with the reason, if users should see one.
    Ignored(Option<Failure>),
    /// It failed, and a retry would fail too.
    Failed(Failure),
    /// It failed for an external cause, such as an outage of GitHub, and is to be retried.
    Retry {
        /// The cause.
        failure: Failure,
        /// The backoff; see [`retry_after`].
        after: Duration,
    },
}

/// Selects deliveries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryFilter {
    /// Only deliveries of this repository.
    pub repo: Option<RepoName>,
    /// Only deliveries of pull requests with this number.
    pub number: Option<u64>,
    /// Only deliveries in this state.
    pub state: Option<DeliveryState>,
    /// Only deliveries that arrived before this one, by [`Delivery::seq`].
    pub before: Option<i64>,
    /// The maximum number of deliveries; the newest are kept.
    pub limit: usize,
}

impl Default for DeliveryFilter {
    /// All deliveries.
    fn default() -> Self {
        Self {
            repo: None,
            number: None,
            state: None,
            before: None,
            limit: usize::MAX,
        }
    }
}

/// The newest intent of a pull request that was not ignored.
pub(crate) struct NewestIntent {
    pub(crate) presence: Presence,
    /// GitHub's time of the event.
    pub(crate) updated_at: Option<Timestamp>,
}

/// Returns the backoff after so many failed attempts: 5 s, doubled each time, at most 10 minutes.
#[must_use]
pub fn retry_after(attempts: u32) -> Duration {
    const BACKOFF: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(600));
    BACKOFF.delay(attempts)
}

/// Returns the desired presence of the preview if the event is an intent.
pub(crate) fn intent(event: &DeliveryEvent) -> Option<Presence> {
    match event.as_pull_request()?.action {
        PrAction::Opened | PrAction::Synchronize | PrAction::Reopened => Some(Presence::Present),
        PrAction::Closed => Some(Presence::Absent),
        PrAction::Edited
        | PrAction::Labeled(_)
        | PrAction::Unlabeled
        | PrAction::ReadyForReview
        | PrAction::ConvertedToDraft
        | PrAction::Other(_) => None,
    }
}

/// Reports whether an intent arrived after a newer one.
///
/// A pull request is opened once, and a closed one gets no commits. So `opened` and `synchronize` after a `closed` were
/// sent before it and must not bring the preview back, unless GitHub's own time is later: then a `reopened` was lost in
/// between. For other intents, GitHub's times decide.
pub(crate) fn is_stale(event: &PullRequestEvent, newest: &NewestIntent) -> bool {
    let needs_open = matches!(event.action, PrAction::Opened | PrAction::Synchronize);
    let was_open = newest.presence == Presence::Present
        || certainly_before(newest.updated_at, event.updated_at);
    needs_open && !was_open || certainly_before(event.updated_at, newest.updated_at)
}

/// Selects the delivery to process from the pending ones of a pull request, which are in order of arrival. `recorded` is
/// the delivery whose wish the preview's record contains.
///
/// The order is kept, with two exceptions: an intent does not wait for an earlier other event that is backing off, and a
/// command does not wait for the execution of an earlier intent whose wish is recorded.
pub(crate) fn choose(
    pending: Vec<Delivery>,
    recorded: Option<&str>,
    now: Timestamp,
) -> NextDelivery {
    let mut pending = pending.into_iter().peekable();
    let Some(first) = pending.next() else {
        return NextDelivery::None;
    };
    let is_recorded = intent(&first.event).is_some() && recorded == Some(first.event.id());
    if is_recorded
        && let Some(command) =
            pending.next_if(|next| next.event.as_command().is_some() && is_due(next, now))
    {
        return NextDelivery::Process(Box::new(command));
    }
    if is_due(&first, now) {
        return NextDelivery::Process(Box::new(first));
    }
    let waits_until = |delivery: &Delivery| delivery.not_before.unwrap_or(now);
    let first_due = waits_until(&first);
    if intent(&first.event).is_some() {
        return NextDelivery::WaitUntil(first_due);
    }
    match pending.find(|delivery| intent(&delivery.event).is_some()) {
        Some(newer) if is_due(&newer, now) => NextDelivery::Process(Box::new(newer)),
        Some(newer) => NextDelivery::WaitUntil(first_due.min(waits_until(&newer))),
        None => NextDelivery::WaitUntil(first_due),
    }
}

/// Reports whether a delivery may be processed now. A time further away than any backoff was recorded while the clock
/// was wrong.
fn is_due(delivery: &Delivery, now: Timestamp) -> bool {
    delivery.not_before.is_none_or(|time| {
        let wait = time.duration_since(now);
        wait <= SignedDuration::ZERO || wait > MAX_BACKOFF
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_survives_changes_of_the_clock() {
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let event = serde_json::json!({
            "delivery": "d",
            "action": "edited",
            "pull_request": { "repo": "octo/web", "number": 7 },
            "head_repo": null,
            "head_sha": "0123456789abcdef0123456789abcdef01234567",
            "head_branch": "topic",
            "base_branch": "main",
            "is_fork": true,
            "author": "alice",
            "sender": "alice",
        });
        let mut delivery = Delivery {
            seq: 1,
            event: serde_json::from_value(event).expect("event"),
            received_at: now,
            state: DeliveryState::Pending,
            attempts: 1,
            not_before: None,
            failure: None,
            finished_at: None,
        };
        let days = SignedDuration::from_hours(48);
        for (not_before, due) in [
            (now, true),
            (now + SignedDuration::from_secs(5), false),
            // Recorded while the clock was two days ahead.
            (now + days + SignedDuration::from_secs(5), true),
            (now - days, true),
        ] {
            delivery.not_before = Some(not_before);
            let next = choose(vec![delivery.clone()], None, now);
            assert_eq!(
                matches!(next, NextDelivery::Process(_)),
                due,
                "{not_before}"
            );
        }
    }
}
