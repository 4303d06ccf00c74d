//! Events of pull requests. GitHub is told that one was accepted when it is on disk here, and never sends
//! it again of its own accord, so each is kept until it was acted on, and is acted on once.
//!
//! Of each pull request the order is that of arrival. An event that says what the preview should be (an
//! *intent*) takes the place of all earlier ones that were not acted on to the end:
//!
//! | arrives | earlier intents that are pending | after `closed` |
//! | --- | --- | --- |
//! | `opened`, `synchronize` | superseded | ignored: it was overtaken on its way |
//! | `reopened` | superseded | counts |
//! | `closed` | superseded | superseded |
//!
//! What GitHub said before it said the newest intent that is here, by its own time, is ignored in any case: such an
//! event was lost and delivered again.
//!
//! Where GitHub's times do not tell which of two intents came first, its state of the pull request decides
//! ([`Store::latest_tied_time`]). Deliveries follow their repository to a new name (`repositories`).
//!
//! Other events, labels among them, neither supersede nor are superseded: an approval and its withdrawal
//! are two facts, and both are acted on in their order.

use std::time::Duration;

use innkeeper_model::preview::api::DeliveryState;
use innkeeper_model::preview::{
    PrAction, PullRequest, PullRequestEvent, RepoName, certainly_before,
};
use innkeeper_model::{Backoff, Failure, GuestName};
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, named_params};
use tokio::sync::oneshot;

use crate::codec::{self, Json, Number, Time, Word};
use crate::connection::Store;
use crate::database::{Database, Durability};
use crate::error::{QueryError, StoreError};
use crate::previews::{self, NewPreview};
use crate::repositories;
use crate::running_time::RunningTime;

/// How many finished deliveries are kept.
const KEPT: u32 = 50_000;

/// How long finished deliveries are kept, in running time. GitHub itself sends deliveries again for three days at most.
const KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 3_600);

/// The longest that a delivery waits for its next attempt. GitHub's rate limits are by the hour.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(3);

/// After how many deliveries old ones are deleted. Until then there may be as many more.
const PRUNE_EVERY: u32 = 1_024;

/// With how many of a pull request's last intents one is compared to find those of the same time.
const COMPARED: u32 = 32;

/// The record of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its place in the order of arrival. It only grows.
    pub seq: i64,
    /// What it says. Its `delivery` is GitHub's name of the delivery, by which it is known here too.
    pub event: PullRequestEvent,
    /// When it arrived.
    pub received_at: Timestamp,
    /// How far it is. Never [`DeliveryState::Running`]: what is being done is not recorded, since a crash
    /// would make it untrue.
    pub state: DeliveryState,
    /// How often acting on it came to an end, whichever.
    pub attempts: u32,
    /// When it may be tried again; nothing when at once.
    pub not_before: Option<Timestamp>,
    /// Why the last attempt failed, or why there was nothing to do.
    pub failure: Option<Failure>,
    /// When it was done with.
    pub finished_at: Option<Timestamp>,
}

/// A delivery whose signature was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDelivery {
    /// What it says.
    pub event: PullRequestEvent,
    /// When it arrived.
    pub received_at: Timestamp,
    /// The slugs that a preview of the pull request may have, the best one first. If the event wants a
    /// preview and there is none yet, the first one that is free is taken together with the delivery.
    /// Empty: no preview is recorded.
    pub slugs: Vec<GuestName>,
}

/// What became of a delivery that was to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// It is on disk, and is to be acted on.
    New {
        /// The slug of the pull request's preview, if it has one.
        slug: Option<GuestName>,
    },
    /// It is on disk since it arrived for the first time.
    Duplicate {
        /// The slug of the pull request's preview, if it has one.
        slug: Option<GuestName>,
    },
    /// It is on disk as ignored: something newer had arrived before. After `closed`, only `reopened` counts.
    Stale {
        /// The slug of the pull request's preview, if it has one still.
        slug: Option<GuestName>,
    },
    /// It was not recorded: every slug belongs to another preview or to a guest.
    SlugsTaken,
}

/// What to do for a pull request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextDelivery {
    /// Act on this one.
    Process(Box<Delivery>),
    /// Nothing before this time, unless another delivery arrives.
    WaitUntil(Timestamp),
    /// Nothing is left.
    None,
}

/// How acting on a delivery ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// It was acted on.
    Done,
    /// There was nothing to do, for this reason if it is worth telling.
    Ignored(Option<Failure>),
    /// It failed, and would again.
    Failed(Failure),
    /// It failed for a cause outside, such as GitHub being down, and is to be tried again.
    Retry {
        /// Why.
        failure: Failure,
        /// After how long; see [`retry_after`].
        after: Duration,
    },
}

/// Which deliveries are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryFilter {
    /// Only those of this repository.
    pub repo: Option<RepoName>,
    /// Only those of pull requests with this number.
    pub number: Option<u64>,
    /// Only those in this state.
    pub state: Option<DeliveryState>,
    /// Only those that arrived before this one, by [`Delivery::seq`].
    pub before: Option<i64>,
    /// At most so many, the newest ones.
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

/// How long to wait after so many attempts that failed: 5 s, then twice as long each time, at most 10
/// minutes.
#[must_use]
pub fn retry_after(attempts: u32) -> Duration {
    const BACKOFF: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(600));
    BACKOFF.delay(attempts)
}

impl Store {
    /// Records one delivery. Durable, and cheap when many do it at the same time: what waits for the
    /// thread is recorded in one transaction.
    ///
    /// # Errors
    /// Only what the disk or SQLite says; then it was not recorded.
    pub async fn record_delivery(&self, new: NewDelivery) -> Result<Receipt, StoreError> {
        let recorded = self.record_deliveries(vec![new]).await?;
        recorded.into_iter().next().ok_or(StoreError::Closed)
    }

    /// Records deliveries, all or none, in their order. The answers are in the same order. Durable; see
    /// [`Self::record_delivery`].
    ///
    /// # Errors
    /// Only what the disk or SQLite says; then none was recorded.
    pub async fn record_deliveries(
        &self,
        new: Vec<NewDelivery>,
    ) -> Result<Vec<Receipt>, StoreError> {
        if new.is_empty() {
            return Ok(Vec::new());
        }
        let (answer, answered) = oneshot::channel();
        self.send_recording(Recording {
            deliveries: new,
            answer,
        })?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// What to do next for a pull request. Earlier intents that are pending are recorded as superseded by
    /// the newest one, which makes this the question to ask again whenever a delivery has arrived, also
    /// while acting on one: another answer than before means that the work in hand is in vain.
    ///
    /// The order is kept, with one exception: an intent does not wait for an earlier other event that is
    /// to be tried again later.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn next_delivery(
        &self,
        pull_request: &PullRequest,
    ) -> Result<NextDelivery, StoreError> {
        let pull_request = pull_request.clone();
        self.run("read the next delivery", move |database| {
            // What is lost with the machine's power is found again by the same rule.
            database.write(Durability::Soon, |transaction| {
                supersede(transaction, &pull_request)?;
                let pending = transaction
                    .prepare_cached(
                        "SELECT * FROM deliveries
                         WHERE repo = ?1 AND number = ?2 AND state = 'pending' ORDER BY seq",
                    )?
                    .query_map(
                        (Word(&pull_request.repo), Number(pull_request.number)),
                        read,
                    )?
                    .collect::<Result<_, _>>()?;
                Ok(choose(pending, Timestamp::now()))
            })
        })
        .await
    }

    /// The pull requests with deliveries that are pending, those first that have waited the longest.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn pending_pull_requests(&self) -> Result<Vec<PullRequest>, StoreError> {
        self.run("read the pending pull requests", |database| {
            let pending = database
                .connection
                .prepare_cached(
                    "SELECT repo, number FROM deliveries WHERE state = 'pending'
                     GROUP BY repo, number ORDER BY min(seq)",
                )?
                .query_map((), read_pull_request)?
                .collect::<Result<_, _>>()?;
            Ok(pending)
        })
        .await
    }

    /// Records how acting on a delivery ended, if it was pending, and returns whether it was: one that was
    /// superseded in the meantime stays so. Durable soon: what is lost with the machine's power is acted on
    /// again, which must be harmless.
    ///
    /// # Errors
    /// [`StoreError::DeliveryNotFound`].
    pub async fn finish_delivery(
        &self,
        id: &str,
        outcome: DeliveryOutcome,
    ) -> Result<bool, StoreError> {
        let id = id.to_owned();
        self.run("record how a delivery ended", move |database| {
            database.write(Durability::Soon, |transaction| {
                let delivery = expect(transaction, &id)?;
                if delivery.state != DeliveryState::Pending {
                    return Ok(false);
                }
                finish(transaction, &id, &outcome)?;
                Ok(true)
            })
        })
        .await
    }

    /// Has a delivery acted on again, at its old place in the order: if a newer intent of the same pull
    /// request has arrived, it will be superseded at once. Returns it as it is now. Durable.
    ///
    /// # Errors
    /// [`StoreError::DeliveryNotFound`].
    pub async fn replay_delivery(&self, id: &str) -> Result<Delivery, StoreError> {
        let id = id.to_owned();
        self.run(
            "record that a delivery is to be acted on again",
            move |database| {
                database.write(Durability::Now, |transaction| {
                    transaction
                    .prepare_cached(
                        "UPDATE deliveries SET state = 'pending', attempts = 0, not_before = NULL,
                         failure = NULL, finished_at = NULL, finished_running = NULL WHERE id = ?1",
                    )?
                    .execute([&id])?;
                    expect(transaction, &id)
                })
            },
        )
        .await
    }

    /// The record of a delivery by GitHub's name of it.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn delivery(&self, id: &str) -> Result<Option<Delivery>, StoreError> {
        let id = id.to_owned();
        self.run("read a delivery", move |database| {
            find(&database.connection, &id)
        })
        .await
    }

    /// The newest of GitHub's times among an intent and those with which it is tied
    /// ([`PullRequestEvent::is_concurrent_with`]); nothing when it is tied with none. The order of arrival is then not that of
    /// the events: the pull request's state on GitHub decides.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn latest_tied_time(
        &self,
        delivery: &Delivery,
    ) -> Result<Option<Timestamp>, StoreError> {
        let delivery = delivery.clone();
        self.run("compare a delivery with others", move |database| {
            let PullRequest { repo, number } = &delivery.event.pull_request;
            let others = database
                .connection
                .prepare_cached(
                    "SELECT * FROM deliveries
                     WHERE repo = ?1 AND number = ?2 AND intent IS NOT NULL AND seq <> ?3
                     ORDER BY seq DESC LIMIT ?4",
                )?
                .query_map((Word(repo), Number(*number), delivery.seq, COMPARED), read)?
                .collect::<Result<Vec<_>, _>>()?;
            let tied = others
                .iter()
                .filter(|other| delivery.event.is_concurrent_with(&other.event));
            let newest = tied.filter_map(|other| other.event.updated_at).max();
            Ok(newest.max(newest.and(delivery.event.updated_at)))
        })
        .await
    }

    /// The delivery because of which one comes to nothing, if there is one: for an intent that has not been
    /// done, the first newer intent of the same pull request, which takes its place; for one that was ignored
    /// when it arrived, the one that had arrived before.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn superseding_delivery(
        &self,
        delivery: &Delivery,
    ) -> Result<Option<Delivery>, StoreError> {
        let condition = match delivery.state {
            _ if intent(&delivery.event.action).is_none() => return Ok(None),
            DeliveryState::Pending | DeliveryState::Running | DeliveryState::Superseded => {
                "seq > ?3 ORDER BY seq"
            }
            // What was ignored later was ignored for a reason of its own.
            DeliveryState::Ignored if delivery.attempts == 0 => "seq < ?3 ORDER BY seq DESC",
            DeliveryState::Ignored | DeliveryState::Done | DeliveryState::Failed => {
                return Ok(None);
            }
        };
        let sql = format!(
            "SELECT * FROM deliveries
             WHERE repo = ?1 AND number = ?2 AND intent IS NOT NULL AND state <> 'ignored'
               AND {condition} LIMIT 1"
        );
        let (pull_request, seq) = (delivery.event.pull_request.clone(), delivery.seq);
        self.run("read what took a delivery's place", move |database| {
            let other = database
                .connection
                .prepare_cached(&sql)?
                .query_row(
                    (Word(&pull_request.repo), Number(pull_request.number), seq),
                    read,
                )
                .optional()?;
            Ok(other)
        })
        .await
    }

    /// The deliveries that a filter lets through, the newest first. Finished ones are kept for 30 days, and
    /// 50,000 of them.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn deliveries(&self, filter: DeliveryFilter) -> Result<Vec<Delivery>, StoreError> {
        self.run("read the deliveries", move |database| {
            let deliveries = database
                .connection
                .prepare_cached(
                    "SELECT * FROM deliveries
                     WHERE (:repo IS NULL OR repo = :repo)
                       AND (:number IS NULL OR number = :number)
                       AND (:state IS NULL OR state = :state)
                       AND (:before IS NULL OR seq < :before)
                     ORDER BY seq DESC LIMIT :limit",
                )?
                .query_map(
                    named_params! {
                        ":repo": filter.repo.map(Word),
                        ":number": filter.number.map(Number),
                        ":state": filter.state.map(Word),
                        ":before": filter.before,
                        ":limit": i64::try_from(filter.limit).unwrap_or(i64::MAX),
                    },
                    read,
                )?
                .collect::<Result<_, _>>()?;
            Ok(deliveries)
        })
        .await
    }
}

/// Deliveries on their way to the thread, with the one who waits for the answer.
pub(crate) struct Recording {
    deliveries: Vec<NewDelivery>,
    answer: oneshot::Sender<Result<Vec<Receipt>, StoreError>>,
}

impl Recording {
    /// How many deliveries there are.
    pub(crate) fn len(&self) -> usize {
        self.deliveries.len()
    }

    /// Records these alone.
    fn record(self, database: &mut Database) {
        let result = record_all(database, std::slice::from_ref(&self));
        // Nobody waits any more when the caller was cancelled; the deliveries are on disk all the same.
        drop(self.answer.send(result));
    }
}

/// Records all that several callers have sent, in one transaction. If that fails, each gets one of its own,
/// so that one caller's trouble is not the others'.
pub(crate) fn record_group(database: &mut Database, group: Vec<Recording>) {
    match record_all(database, &group) {
        Ok(recorded) => {
            let mut recorded = recorded.into_iter();
            for recording in group {
                let own = recorded.by_ref().take(recording.len()).collect();
                drop(recording.answer.send(Ok(own)));
            }
        }
        Err(_) => {
            for recording in group {
                recording.record(database);
            }
        }
    }
    // Nobody waits for this, and a failure of it is no failure of a delivery.
    if let Err(error) = prune_when_due(database) {
        let error = error.explain("delete old deliveries", &database.path);
        tracing::warn!(%error, "old deliveries are kept");
    }
}

fn record_all(database: &mut Database, group: &[Recording]) -> Result<Vec<Receipt>, StoreError> {
    let deliveries = || group.iter().flat_map(|recording| &recording.deliveries);
    let recorded: Result<Vec<_>, _> = database.require_space().and_then(|()| {
        database.write(Durability::Now, |transaction| {
            deliveries().map(|new| record(transaction, new)).collect()
        })
    });
    let recorded = recorded.map_err(|error| error.explain("record a delivery", &database.path))?;
    if let Some(count) = &mut database.deliveries_since_prune {
        *count = count.saturating_add(u32::try_from(recorded.len()).unwrap_or(u32::MAX));
    }
    Ok(recorded)
}

fn record(transaction: &Transaction<'_>, new: &NewDelivery) -> Result<Receipt, QueryError> {
    let new = &NewDelivery {
        event: repositories::current(transaction, &new.event)?,
        ..new.clone()
    };
    let event = &new.event;
    let slug = previews::slug_of(transaction, &event.pull_request)?;
    if is_recorded(transaction, &event.delivery)? {
        return Ok(Receipt::Duplicate { slug });
    }
    if is_overtaken(transaction, event)? || repositories::is_deleted(transaction, event)? {
        insert(transaction, new, DeliveryState::Ignored)?;
        return Ok(Receipt::Stale { slug });
    }
    let slug = match slug {
        None if intent(&event.action) == Some(Intent::Present) && !new.slugs.is_empty() => {
            match previews::claim(transaction, &NewPreview::of(event), &new.slugs)? {
                None => return Ok(Receipt::SlugsTaken),
                taken => taken,
            }
        }
        slug => slug,
    };
    insert(transaction, new, DeliveryState::Pending)?;
    Ok(Receipt::New { slug })
}

/// What an event says of the preview as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Intent {
    Present,
    Absent,
}

impl Intent {
    fn as_str(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Absent => "absent",
        }
    }
}

fn intent(action: &PrAction) -> Option<Intent> {
    match action {
        PrAction::Opened | PrAction::Synchronize | PrAction::Reopened => Some(Intent::Present),
        PrAction::Closed => Some(Intent::Absent),
        PrAction::Edited | PrAction::Labeled(_) | PrAction::Unlabeled | PrAction::Other(_) => None,
    }
}

fn is_recorded(connection: &Connection, id: &str) -> Result<bool, QueryError> {
    let there = connection
        .prepare_cached("SELECT 1 FROM deliveries WHERE id = ?1")?
        .exists([id])?;
    Ok(there)
}

/// Whether what came to pass later was there first. A pull request is opened once, and a closed one has no new
/// commits, so such an event was sent before a `closed` and must not bring back what was removed, unless GitHub's own
/// time says that it came after: then a `reopened` was lost in between. Of others, that time tells which was first, when
/// one of them arrives very late.
fn is_overtaken(connection: &Connection, event: &PullRequestEvent) -> Result<bool, QueryError> {
    if intent(&event.action).is_none() {
        return Ok(false);
    }
    let newest: Option<(String, Option<String>)> = connection
        .prepare_cached(
            "SELECT intent, json_extract(event, '$.updated_at') FROM deliveries
             WHERE repo = ?1 AND number = ?2 AND intent IS NOT NULL AND state <> 'ignored'
             ORDER BY seq DESC LIMIT 1",
        )?
        .query_row(
            (
                Word(&event.pull_request.repo),
                Number(event.pull_request.number),
            ),
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let Some((newest, updated_at)) = newest else {
        return Ok(false);
    };
    let needs_open = matches!(event.action, PrAction::Opened | PrAction::Synchronize);
    let updated_at = updated_at.and_then(|time| time.parse().ok());
    let was_open =
        newest != Intent::Absent.as_str() || certainly_before(updated_at, event.updated_at);
    Ok(needs_open && !was_open || certainly_before(event.updated_at, updated_at))
}

fn insert(
    transaction: &Transaction<'_>,
    new: &NewDelivery,
    state: DeliveryState,
) -> Result<(), QueryError> {
    let event = &new.event;
    let finished_at = (state != DeliveryState::Pending).then(Time::now);
    transaction
        .prepare_cached(
            "INSERT INTO deliveries
             (id, repo, number, intent, event, received_at, state, finished_at, finished_running)
             VALUES (:id, :repo, :number, :intent, :event, :received_at, :state, :finished_at,
                     iif(:finished_at IS NULL, NULL, (SELECT micros FROM running_time)))",
        )?
        .execute(named_params! {
            ":id": event.delivery,
            ":repo": Word(&event.pull_request.repo),
            ":number": Number(event.pull_request.number),
            ":intent": intent(&event.action).map(Intent::as_str),
            ":event": Json(event),
            ":received_at": Time(new.received_at),
            ":state": Word(state),
            ":finished_at": finished_at,
        })?;
    Ok(())
}

/// The newest intent of a pull request takes the place of earlier ones.
fn supersede(transaction: &Transaction<'_>, pull_request: &PullRequest) -> Result<(), QueryError> {
    transaction
        .prepare_cached(
            "UPDATE deliveries SET state = 'superseded', finished_at = ?3,
             finished_running = (SELECT micros FROM running_time)
             WHERE repo = ?1 AND number = ?2 AND state = 'pending' AND intent IS NOT NULL
               AND seq < (
                   SELECT seq FROM deliveries
                   WHERE repo = ?1 AND number = ?2 AND intent IS NOT NULL AND state <> 'ignored'
                   ORDER BY seq DESC LIMIT 1)",
        )?
        .execute((
            Word(&pull_request.repo),
            Number(pull_request.number),
            Time::now(),
        ))?;
    Ok(())
}

/// Whether a delivery is to be acted on still.
pub(crate) fn is_pending(connection: &Connection, id: &str) -> Result<bool, QueryError> {
    Ok(expect(connection, id)?.state == DeliveryState::Pending)
}

/// Whether a delivery of a pull request is to be acted on still.
pub(crate) fn has_pending(
    connection: &Connection,
    pull_request: &PullRequest,
) -> Result<bool, QueryError> {
    let pending = connection
        .prepare_cached(
            "SELECT 1 FROM deliveries WHERE repo = ?1 AND number = ?2 AND state = 'pending'",
        )?
        .exists((Word(&pull_request.repo), Number(pull_request.number)))?;
    Ok(pending)
}

/// What somebody on the host wants takes the place of deliveries that want the preview to be there.
pub(crate) fn overrule(
    transaction: &Transaction<'_>,
    pull_request: &PullRequest,
) -> Result<(), QueryError> {
    transaction
        .prepare_cached(
            "UPDATE deliveries SET state = 'superseded', not_before = NULL, finished_at = ?3,
             finished_running = (SELECT micros FROM running_time)
             WHERE repo = ?1 AND number = ?2 AND state = 'pending' AND intent = 'present'",
        )?
        .execute((
            Word(&pull_request.repo),
            Number(pull_request.number),
            Time::now(),
        ))?;
    Ok(())
}

/// Whether a delivery may be acted on now. A time that is further away than any retry means that the clock has changed
/// since it was recorded.
fn is_due(delivery: &Delivery, now: Timestamp) -> bool {
    delivery.not_before.is_none_or(|time| {
        let wait = time.duration_since(now);
        wait <= SignedDuration::ZERO || wait > LONGEST_WAIT
    })
}

/// Which of the pending deliveries of a pull request, in their order, to act on.
fn choose(pending: Vec<Delivery>, now: Timestamp) -> NextDelivery {
    let due = |delivery: &Delivery| is_due(delivery, now);
    let mut pending = pending.into_iter();
    let Some(first) = pending.next() else {
        return NextDelivery::None;
    };
    if due(&first) {
        return NextDelivery::Process(Box::new(first));
    }
    let waits_for = |delivery: &Delivery| delivery.not_before.unwrap_or(now);
    let first_due = waits_for(&first);
    if intent(&first.event.action).is_some() {
        return NextDelivery::WaitUntil(first_due);
    }
    match pending.find(|delivery| intent(&delivery.event.action).is_some()) {
        Some(newer) if due(&newer) => NextDelivery::Process(Box::new(newer)),
        Some(newer) => NextDelivery::WaitUntil(first_due.min(waits_for(&newer))),
        None => NextDelivery::WaitUntil(first_due),
    }
}

fn finish(
    transaction: &Transaction<'_>,
    id: &str,
    outcome: &DeliveryOutcome,
) -> Result<(), QueryError> {
    let (state, failure, wait) = match outcome {
        DeliveryOutcome::Done => (DeliveryState::Done, None, None),
        DeliveryOutcome::Ignored(reason) => (DeliveryState::Ignored, reason.as_ref(), None),
        DeliveryOutcome::Failed(failure) => (DeliveryState::Failed, Some(failure), None),
        DeliveryOutcome::Retry { failure, after } => {
            (DeliveryState::Pending, Some(failure), Some(*after))
        }
    };
    let now = Time::now();
    let not_before = wait.map(|wait| {
        let wait = SignedDuration::try_from(wait).unwrap_or(LONGEST_WAIT);
        let wait = wait.min(LONGEST_WAIT);
        Time(now.0.saturating_add(wait).unwrap_or(Timestamp::MAX))
    });
    let finished_at = not_before.is_none().then_some(now);
    transaction
        .prepare_cached(
            "UPDATE deliveries SET state = :state, failure = :failure,
             attempts = attempts + 1, not_before = :not_before, finished_at = :finished_at,
             finished_running = iif(:finished_at IS NULL, NULL, (SELECT micros FROM running_time))
             WHERE id = :id",
        )?
        .execute(named_params! {
            ":id": id,
            ":state": Word(state),
            ":failure": failure.map(Json),
            ":not_before": not_before,
            ":finished_at": finished_at,
        })?;
    Ok(())
}

/// Deletes finished deliveries that are too old or too many, from time to time. What is pending stays.
fn prune_when_due(database: &mut Database) -> Result<(), QueryError> {
    if database
        .deliveries_since_prune
        .is_some_and(|count| count < PRUNE_EVERY)
    {
        return Ok(());
    }
    database.deliveries_since_prune = Some(0);
    let expired_before = database.clock.expiry().expired_before(KEPT_FOR);
    database.write(Durability::Soon, |transaction| {
        prune(transaction, KEPT, expired_before.unwrap_or_default())
    })
}

fn prune(
    transaction: &Transaction<'_>,
    kept: u32,
    expired_before: RunningTime,
) -> Result<(), QueryError> {
    // In the order of arrival, up to the first one that is young enough or not finished: a long delivery
    // that is pending holds up what came after it, and costs nothing but space.
    transaction
        .prepare_cached(
            "DELETE FROM deliveries WHERE state <> 'pending' AND (
                 seq <= (SELECT seq FROM deliveries WHERE state <> 'pending'
                         ORDER BY seq DESC LIMIT 1 OFFSET ?1)
                 OR seq < (SELECT seq FROM deliveries
                           WHERE finished_running IS NULL OR finished_running >= ?2
                           ORDER BY seq LIMIT 1))",
        )?
        .execute((kept, expired_before))?;
    Ok(())
}

fn find(connection: &Connection, id: &str) -> Result<Option<Delivery>, QueryError> {
    let delivery = connection
        .prepare_cached("SELECT * FROM deliveries WHERE id = ?1")?
        .query_row([id], read)
        .optional()?;
    Ok(delivery)
}

fn expect(connection: &Connection, id: &str) -> Result<Delivery, QueryError> {
    let id = || id.to_owned();
    find(connection, &id())?.ok_or_else(|| StoreError::DeliveryNotFound { id: id() }.into())
}

fn read_pull_request(row: &Row<'_>) -> rusqlite::Result<PullRequest> {
    Ok(PullRequest {
        repo: row.get::<_, Word<_>>("repo")?.0,
        number: row.get::<_, Number>("number")?.0,
    })
}

fn read(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    let not_before: Option<Time> = row.get("not_before")?;
    let finished_at: Option<Time> = row.get("finished_at")?;
    let failure: Option<String> = row.get("failure")?;
    let event: PullRequestEvent = row.get::<_, Json<_>>("event")?.0;
    Ok(Delivery {
        seq: row.get("seq")?,
        event: event.with_repo(row.get::<_, Word<_>>("repo")?.0),
        received_at: row.get::<_, Time>("received_at")?.0,
        state: row.get::<_, Word<_>>("state")?.0,
        attempts: row.get("attempts")?,
        not_before: not_before.map(|time| time.0),
        failure: failure.as_deref().map(codec::failure),
        finished_at: finished_at.map(|time| time.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(id: &str) -> NewDelivery {
        let event = serde_json::json!({
            "delivery": id,
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
        NewDelivery {
            event: serde_json::from_value(event).expect("event"),
            received_at: Timestamp::UNIX_EPOCH,
            slugs: Vec::new(),
        }
    }

    /// Which of `d0` to `d9` are left after a pruning; `d4` is pending, and all others are done.
    fn left(kept: u32, expired_before: impl Fn(&Database) -> RunningTime) -> Vec<String> {
        let directory = tempfile::tempdir().expect("directory");
        let range = "10.100.0.0/16".parse().expect("range");
        let path = directory.path().join("innkeeper.db");
        let mut database = Database::open(&path, range).expect("opens");
        let work = |transaction: &Transaction<'_>| {
            for n in 0..10_i64 {
                // Ten minutes of running time pass; the wall clock stands still.
                transaction.execute("UPDATE running_time SET micros = ?1", [n * 600_000_000])?;
                record(transaction, &new(&format!("d{n}")))?;
                if n != 4 {
                    finish(transaction, &format!("d{n}"), &DeliveryOutcome::Done)?;
                }
            }
            Ok(())
        };
        database.write(Durability::Soon, work).expect("records");
        let expired_before = expired_before(&database);
        let pruned = database.write(Durability::Soon, |t| prune(t, kept, expired_before));
        pruned.expect("prunes");
        let mut ids = database
            .connection
            .prepare("SELECT id FROM deliveries ORDER BY seq")
            .expect("prepares");
        let ids = ids.query_map((), |row| row.get(0)).expect("reads");
        ids.collect::<Result<_, _>>().expect("reads")
    }

    #[test]
    fn a_retry_waits_neither_longer_nor_for_ever_when_the_clock_changes() {
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let directory = tempfile::tempdir().expect("directory");
        let range = "10.100.0.0/16".parse().expect("range");
        let path = directory.path().join("innkeeper.db");
        let mut database = Database::open(&path, range).expect("opens");
        let recorded = database.write(Durability::Soon, |t| {
            record(t, &new("d"))?;
            expect(t, "d")
        });
        let mut delivery = recorded.expect("records");
        let days = SignedDuration::from_hours(48);
        for (not_before, due) in [
            (now, true),
            (now + SignedDuration::from_secs(5), false),
            // Recorded while the clock was two days ahead.
            (now + days + SignedDuration::from_secs(5), true),
            (now - days, true),
        ] {
            delivery.not_before = Some(not_before);
            let next = choose(vec![delivery.clone()], now);
            assert_eq!(
                matches!(next, NextDelivery::Process(_)),
                due,
                "{not_before}"
            );
        }
    }

    #[test]
    fn finished_deliveries_go_when_they_are_too_many_or_too_old() {
        let long_ago = |_: &Database| RunningTime::default();
        assert_eq!(left(10, long_ago).len(), 10);
        assert_eq!(left(3, long_ago), ["d4", "d7", "d8", "d9"]);
        assert_eq!(left(0, long_ago), ["d4"], "what is pending stays");

        let time_of_d2 = |database: &Database| {
            let sql = "SELECT finished_running FROM deliveries WHERE id = 'd2'";
            let found = database.connection.query_row(sql, (), |row| row.get(0));
            found.expect("reads")
        };
        let end = |database: &Database| {
            let sql = "SELECT max(finished_running) + 1 FROM deliveries";
            let found = database.connection.query_row(sql, (), |row| row.get(0));
            found.expect("reads")
        };
        assert_eq!(left(10, time_of_d2)[0], "d2");
        assert_eq!(
            left(10, end),
            ["d4", "d5", "d6", "d7", "d8", "d9"],
            "what is pending holds up those behind it"
        );
    }
}
