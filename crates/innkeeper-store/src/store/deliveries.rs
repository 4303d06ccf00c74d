//! Deliveries; see [`crate::delivery`] about their rules. They are recorded in groups: one sync of the disk serves all
//! callers that wait at the same time.

use std::slice;
use std::time::Duration;

use innkeeper_model::preview::api::DeliveryState;
use innkeeper_model::preview::{DeliveryEvent, PullRequest};
use jiff::Timestamp;
use rusqlite::{Connection, Transaction};
use tokio::sync::oneshot;

use super::{Store, previews as preview_rules, repositories as repository_rules};
use crate::connection::{GroupCommit, Message};
use crate::database::{Database, Durability};
use crate::delivery::{
    self, Delivery, DeliveryFilter, DeliveryOutcome, NewDelivery, NextDelivery, Receipt,
};
use crate::error::{QueryError, StoreError};
use crate::preview::{NewPreview, Presence};
use crate::sql::{deliveries, held, previews};

/// The number of finished deliveries that are kept.
const KEPT: u32 = 50_000;

/// How long finished deliveries are kept, in running time. GitHub itself redelivers for three days at most.
const KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 3_600);

/// The number of a pull request's last intents that are compared with one to find those of the same time.
const COMPARED: u32 = 32;

impl Store {
    /// Records one delivery. Durable, and cheap for concurrent callers: those that wait for the thread share a transaction.
    ///
    /// # Errors
    /// Only if the database cannot be written; then the delivery was not recorded.
    pub async fn record_delivery(&self, new: NewDelivery) -> Result<Receipt, StoreError> {
        let receipts = self.record_deliveries(vec![new]).await?;
        receipts.into_iter().next().ok_or(StoreError::Closed)
    }

    /// Records deliveries in their order, all or none, and returns their receipts in the same order. Durable; see
    /// [`Self::record_delivery`].
    ///
    /// # Errors
    /// Only if the database cannot be written; then none was recorded.
    pub async fn record_deliveries(
        &self,
        deliveries: Vec<NewDelivery>,
    ) -> Result<Vec<Receipt>, StoreError> {
        if deliveries.is_empty() {
            return Ok(Vec::new());
        }
        let (reply, receipts) = oneshot::channel();
        self.thread
            .send(Message::Group(Batch { deliveries, reply }))
            .map_err(|_| StoreError::Closed)?;
        receipts.await.map_err(|_| StoreError::Closed)?
    }

    /// Returns the delivery of a pull request to process next. Records earlier pending intents as superseded by the newest
    /// one. Call it again whenever a delivery has arrived, even while processing one: if the result has changed, cancel
    /// the work in progress.
    ///
    /// The order is kept, with two exceptions: an intent does not wait for an earlier other event that is backing off, and
    /// a command does not wait for the execution of an earlier intent whose wish is recorded.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn next_delivery(
        &self,
        pull_request: &PullRequest,
    ) -> Result<NextDelivery, StoreError> {
        let pull_request = pull_request.clone();
        // If a loss of power undoes it, the next call supersedes by the same rule.
        let durability = Durability::Soon;
        self.write("read the next delivery", durability, move |transaction| {
            deliveries::supersede(transaction, &pull_request)?;
            let pending = deliveries::pending(transaction, &pull_request)?;
            let recorded = previews::last_delivery_of(transaction, &pull_request)?;
            Ok(delivery::choose(
                pending,
                recorded.as_deref(),
                Timestamp::now(),
            ))
        })
        .await
    }

    /// Returns the pull requests with pending deliveries, the longest waiting first.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn pending_pull_requests(&self) -> Result<Vec<PullRequest>, StoreError> {
        let action = "read the pending pull requests";
        self.read(action, deliveries::pending_pull_requests).await
    }

    /// Records the result of processing a delivery if it is pending, and reports whether it was: one that was superseded in
    /// the meantime stays so. Durable soon: a delivery whose result is lost with the machine's power is processed again,
    /// which must be idempotent.
    ///
    /// # Errors
    /// [`StoreError::DeliveryNotFound`].
    pub async fn finish_delivery(
        &self,
        id: &str,
        outcome: DeliveryOutcome,
    ) -> Result<bool, StoreError> {
        let id = id.to_owned();
        let action = "record the result of a delivery";
        self.write(action, Durability::Soon, move |transaction| {
            if !deliveries::is_pending(transaction, &id)? {
                return Ok(false);
            }
            deliveries::finish(transaction, &id, &outcome)?;
            Ok(true)
        })
        .await
    }

    /// Makes a delivery pending again, at its old place in the order: a newer intent of the same pull request supersedes it
    /// at once. Returns the delivery. Durable.
    ///
    /// # Errors
    /// [`StoreError::DeliveryNotFound`].
    pub async fn replay_delivery(&self, id: &str) -> Result<Delivery, StoreError> {
        let id = id.to_owned();
        let action = "replay a delivery";
        self.write(action, Durability::Now, move |transaction| {
            deliveries::reset(transaction, &id)?;
            deliveries::require(transaction, &id)
        })
        .await
    }

    /// Returns a delivery by GitHub's id of it.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn delivery(&self, id: &str) -> Result<Option<Delivery>, StoreError> {
        let id = id.to_owned();
        self.read("read a delivery", move |connection| {
            deliveries::find(connection, &id)
        })
        .await
    }

    /// Returns the latest of GitHub's times among an intent and the intents it is tied with
    /// ([`is_concurrent_with`]); `None` without a tie. With a tie, the order of arrival may not be that of the events: the
    /// pull request's state on GitHub decides.
    ///
    /// [`is_concurrent_with`]: innkeeper_model::preview::PullRequestEvent::is_concurrent_with
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn latest_tied_time(
        &self,
        delivery: &Delivery,
    ) -> Result<Option<Timestamp>, StoreError> {
        let delivery = delivery.clone();
        self.read("compare a delivery with others", move |connection| {
            let Some(event) = delivery.event.as_pull_request() else {
                return Ok(None);
            };
            let others = deliveries::other_intents(connection, &delivery, COMPARED)?;
            let others = others
                .iter()
                .filter_map(|other| other.event.as_pull_request());
            let tied = others.filter(|other| event.is_concurrent_with(other));
            let latest = tied.filter_map(|other| other.updated_at).max();
            Ok(latest.max(latest.and(event.updated_at)))
        })
        .await
    }

    /// Returns the delivery that makes one ineffective. For a pending or superseded intent, that is the first newer intent
    /// of the same pull request; for one that was stale on arrival, the last earlier one.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn superseding_delivery(
        &self,
        delivery: &Delivery,
    ) -> Result<Option<Delivery>, StoreError> {
        if delivery::intent(&delivery.event).is_none() {
            return Ok(None);
        }
        let query: fn(&Connection, &Delivery) -> _ = match delivery.state {
            DeliveryState::Pending | DeliveryState::Running | DeliveryState::Superseded => {
                deliveries::intent_after
            }
            // One that was ignored after an attempt has a failure that explains it.
            DeliveryState::Ignored if delivery.attempts == 0 => deliveries::intent_before,
            DeliveryState::Ignored | DeliveryState::Done | DeliveryState::Failed => {
                return Ok(None);
            }
        };
        let delivery = delivery.clone();
        self.read("read the superseding delivery", move |connection| {
            query(connection, &delivery)
        })
        .await
    }

    /// Returns the selected deliveries, the newest first. Finished ones are kept for 30 days, and at most 50,000 of them.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn deliveries(&self, filter: DeliveryFilter) -> Result<Vec<Delivery>, StoreError> {
        self.read("read the deliveries", move |connection| {
            deliveries::list(connection, filter)
        })
        .await
    }

    /// Returns the last delivery of each repository, ordered by repository.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn last_deliveries(&self) -> Result<Vec<Delivery>, StoreError> {
        let action = "read the last deliveries";
        self.read(action, deliveries::last_of_each_repo).await
    }

    /// Returns the number of the last delivery that arrived, 0 when none has.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn last_delivery_seq(&self) -> Result<i64, StoreError> {
        self.read("read the last delivery", deliveries::last_seq)
            .await
    }
}

/// Deliveries on their way to the thread, with the channel for their receipts.
pub(super) struct Batch {
    deliveries: Vec<NewDelivery>,
    reply: oneshot::Sender<Result<Vec<Receipt>, StoreError>>,
}

impl GroupCommit for Batch {
    fn rows(&self) -> usize {
        self.deliveries.len()
    }

    /// Records all batches in one transaction. If that fails, each gets a transaction of its own, so that the failure of
    /// one caller is not the others'.
    fn commit(group: Vec<Self>, database: &mut Database) {
        match record_all(database, &group) {
            Ok(receipts) => {
                let mut receipts = receipts.into_iter();
                for batch in group {
                    let own = receipts.by_ref().take(batch.rows()).collect();
                    batch.send(Ok(own));
                }
            }
            Err(_) => {
                for batch in group {
                    let result = record_all(database, slice::from_ref(&batch));
                    batch.send(result);
                }
            }
        }
        // The callers have their receipts: a failure here is none of theirs.
        if let Err(error) = prune_when_due(database) {
            let error = error.explain("delete old deliveries", &database.path);
            tracing::warn!(%error, "old deliveries are kept");
        }
    }
}

impl Batch {
    /// Sends the receipts. The deliveries are on disk even if the caller was canceled.
    fn send(self, result: Result<Vec<Receipt>, StoreError>) {
        drop(self.reply.send(result));
    }
}

fn record_all(database: &mut Database, group: &[Batch]) -> Result<Vec<Receipt>, StoreError> {
    let deliveries = || group.iter().flat_map(|batch| &batch.deliveries);
    let receipts: Result<Vec<_>, _> = database.require_space().and_then(|()| {
        database.write(Durability::Now, |transaction| {
            deliveries().map(|new| record(transaction, new)).collect()
        })
    });
    let receipts = receipts.map_err(|error| error.explain("record a delivery", &database.path))?;
    database.deliveries.add(receipts.len());
    Ok(receipts)
}

fn record(transaction: &Transaction<'_>, new: &NewDelivery) -> Result<Receipt, QueryError> {
    let new = &NewDelivery {
        event: repository_rules::under_recorded_name(transaction, &new.event)?,
        ..new.clone()
    };
    let event = &new.event;
    let slug = previews::slug_of(transaction, event.pull_request())?;
    let has_failed = match find(transaction, event)? {
        None => false,
        Some(known) if known.state == DeliveryState::Failed && known.event.id() == event.id() => {
            true
        }
        Some(known) => {
            let is_finished =
                !matches!(known.state, DeliveryState::Pending | DeliveryState::Running);
            return Ok(Receipt::Duplicate { slug, is_finished });
        }
    };
    if is_stale(transaction, event)? || repository_rules::is_deleted(transaction, event)? {
        if !has_failed {
            deliveries::insert(transaction, new, DeliveryState::Ignored)?;
        }
        return Ok(Receipt::Stale { slug });
    }
    let requests = event
        .as_pull_request()
        .filter(|_| delivery::intent(event) == Some(Presence::Present));
    let slug = match (slug, requests) {
        // A name that a restore holds is claimed later, when the delivery is dispatched.
        (None, Some(event))
            if !new.slugs.is_empty() && !held::has_any(transaction, &new.slugs)? =>
        {
            match preview_rules::claim(transaction, &NewPreview::of(event), &new.slugs)? {
                None => return Ok(Receipt::SlugsTaken),
                claimed => claimed,
            }
        }
        (slug, _) => slug,
    };
    match has_failed {
        true => deliveries::reset(transaction, event.id())?,
        false => deliveries::insert(transaction, new, DeliveryState::Pending)?,
    }
    Ok(Receipt::New { slug })
}

/// Returns the recorded delivery of an event. A comment with a command has one, whatever number of webhooks deliver it.
fn find(connection: &Connection, event: &DeliveryEvent) -> Result<Option<Delivery>, QueryError> {
    match (
        deliveries::find(connection, event.id())?,
        event.as_command(),
    ) {
        (None, Some(command)) => deliveries::find_of_comment(connection, command.comment),
        (known, _) => Ok(known),
    }
}

fn is_stale(connection: &Connection, event: &DeliveryEvent) -> Result<bool, QueryError> {
    let intent = delivery::intent(event).and_then(|_| event.as_pull_request());
    let Some(event) = intent else {
        return Ok(false);
    };
    let newest = deliveries::newest_intent(connection, &event.pull_request)?;
    Ok(newest.is_some_and(|newest| delivery::is_stale(event, &newest)))
}

/// Deletes old finished deliveries, at intervals.
fn prune_when_due(database: &mut Database) -> Result<(), QueryError> {
    if !database.deliveries.is_due() {
        return Ok(());
    }
    database.deliveries.reset();
    let expired_before = database.clock.expiry().expired_before(KEPT_FOR);
    database.write(Durability::Soon, |transaction| {
        deliveries::prune(transaction, KEPT, expired_before.unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use innkeeper_model::preview::{PrAction, PullRequestEvent};

    use super::*;
    use crate::clock::{self, RunningTime};
    use crate::store::tests::{delivery, open_database, pull_request_event};

    /// Prunes `d0` to `d9` and returns those that are left; `d4` is pending, and all others are done.
    fn left(kept: u32, expired_before: impl Fn(&Database) -> RunningTime) -> Vec<String> {
        let directory = tempfile::tempdir().expect("directory");
        let mut database = open_database(directory.path());
        for n in 0..10 {
            // Ten minutes of running time pass; the wall clock stands still.
            if n > 0 {
                database.clock.advance(Duration::from_secs(600));
            }
            let now = database.clock.now();
            let work = |transaction: &Transaction<'_>| {
                clock::record(transaction, now)?;
                let id = format!("d{n}");
                let edited = PullRequestEvent {
                    action: PrAction::Edited,
                    ..pull_request_event(&id)
                };
                let new = NewDelivery {
                    event: edited.into(),
                    ..delivery(&id)
                };
                record(transaction, &new)?;
                if n != 4 {
                    deliveries::finish(transaction, &id, &DeliveryOutcome::Done)?;
                }
                Ok(())
            };
            database.write(Durability::Soon, work).expect("records");
        }
        let expired_before = expired_before(&database);
        let pruned = database.write(Durability::Soon, |transaction| {
            deliveries::prune(transaction, kept, expired_before)
        });
        pruned.expect("prunes");
        let kept = deliveries::list(&database.connection, DeliveryFilter::default());
        let kept = kept.expect("reads").into_iter().rev();
        kept.map(|delivery| delivery.event.id().to_owned())
            .collect()
    }

    #[test]
    fn pruning_deletes_finished_deliveries_that_are_many_or_old() {
        let long_ago = |_: &Database| RunningTime::default();
        assert_eq!(left(10, long_ago).len(), 10);
        assert_eq!(left(3, long_ago), ["d4", "d7", "d8", "d9"]);
        assert_eq!(left(0, long_ago), ["d4"], "a pending delivery stays");

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
            "a pending delivery keeps those behind it"
        );
    }

    #[test]
    fn all_ways_to_supersede_record_the_end_in_running_time() {
        type Supersede = fn(&Transaction<'_>, &PullRequest) -> Result<(), QueryError>;
        let ways: [Supersede; 2] = [deliveries::override_present, |transaction, pull_request| {
            deliveries::override_present_of_repo(transaction, &pull_request.repo)
        }];
        for supersede in ways {
            let directory = tempfile::tempdir().expect("directory");
            let mut database = open_database(directory.path());
            let new = delivery("d");
            let work = |transaction: &Transaction<'_>| {
                record(transaction, &new)?;
                supersede(transaction, new.event.pull_request())
            };
            database.write(Durability::Soon, work).expect("records");
            let sql = "SELECT state, finished_running IS NOT NULL FROM deliveries";
            let row = database
                .connection
                .query_row(sql, (), |row| Ok((row.get(0)?, row.get(1)?)));
            assert_eq!(row.expect("reads"), ("superseded".to_owned(), true));
        }
    }
}
