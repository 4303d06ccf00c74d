//! Table `deliveries`.

use innkeeper_model::preview::api::DeliveryState;
use innkeeper_model::preview::{DeliveryEvent, PullRequest, RepoName};
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, Row, Transaction, named_params};

use crate::clock::RunningTime;
use crate::codec::{Columns, Json, Number, Text, Time};
use crate::delivery::{
    Delivery, DeliveryFilter, DeliveryOutcome, MAX_BACKOFF, NewDelivery, NewestIntent, intent,
};
use crate::error::{QueryError, StoreError};
use crate::sql;

pub(crate) fn find(connection: &Connection, id: &str) -> Result<Option<Delivery>, QueryError> {
    let query = "SELECT * FROM deliveries WHERE id = ?1";
    sql::first(connection, query, [id], read)
}

/// Returns the delivery of a comment.
pub(crate) fn find_of_comment(
    connection: &Connection,
    comment: u64,
) -> Result<Option<Delivery>, QueryError> {
    let query = "SELECT * FROM deliveries WHERE comment = ?1";
    sql::first(connection, query, [Number(comment)], read)
}

/// Returns a delivery, or fails with [`StoreError::DeliveryNotFound`].
pub(crate) fn require(connection: &Connection, id: &str) -> Result<Delivery, QueryError> {
    find(connection, id)?.ok_or_else(|| StoreError::DeliveryNotFound { id: id.to_owned() }.into())
}

/// Reports whether a delivery is pending, or fails with [`StoreError::DeliveryNotFound`].
pub(crate) fn is_pending(connection: &Connection, id: &str) -> Result<bool, QueryError> {
    Ok(require(connection, id)?.state == DeliveryState::Pending)
}

/// Returns the pending deliveries of a pull request in order of arrival.
pub(crate) fn pending(
    connection: &Connection,
    PullRequest { repo, number }: &PullRequest,
) -> Result<Vec<Delivery>, QueryError> {
    sql::all(
        connection,
        "SELECT * FROM deliveries
         WHERE repo = ?1 AND number = ?2 AND state = 'pending' ORDER BY seq",
        (Text(repo), Number(*number)),
        read,
    )
}

/// Reports whether a pull request has pending deliveries.
pub(crate) fn has_pending(
    connection: &Connection,
    PullRequest { repo, number }: &PullRequest,
) -> Result<bool, QueryError> {
    sql::exists(
        connection,
        "SELECT 1 FROM deliveries WHERE repo = ?1 AND number = ?2 AND state = 'pending'",
        (Text(repo), Number(*number)),
    )
}

/// Returns the pull requests with pending deliveries, the longest waiting first.
pub(crate) fn pending_pull_requests(
    connection: &Connection,
) -> Result<Vec<PullRequest>, QueryError> {
    sql::all(
        connection,
        "SELECT repo, number FROM deliveries WHERE state = 'pending'
         GROUP BY repo, number ORDER BY min(seq)",
        (),
        |row| {
            Ok(PullRequest {
                repo: row.text("repo")?,
                number: row.number("number")?,
            })
        },
    )
}

/// Returns the newest intent of a pull request that was not ignored.
pub(crate) fn newest_intent(
    connection: &Connection,
    PullRequest { repo, number }: &PullRequest,
) -> Result<Option<NewestIntent>, QueryError> {
    sql::first(
        connection,
        "SELECT intent, json_extract(event, '$.updated_at') FROM deliveries
         WHERE repo = ?1 AND number = ?2 AND intent IS NOT NULL AND state <> 'ignored'
         ORDER BY seq DESC LIMIT 1",
        (Text(repo), Number(*number)),
        |row| {
            let updated_at: Option<String> = row.get(1)?;
            Ok(NewestIntent {
                presence: row.text(0)?,
                updated_at: updated_at.and_then(|time| time.parse().ok()),
            })
        },
    )
}

/// Returns the last `limit` other intents of the delivery's pull request, the newest first.
pub(crate) fn other_intents(
    connection: &Connection,
    delivery: &Delivery,
    limit: u32,
) -> Result<Vec<Delivery>, QueryError> {
    let PullRequest { repo, number } = delivery.event.pull_request();
    sql::all(
        connection,
        "SELECT * FROM deliveries
         WHERE repo = ?1 AND number = ?2 AND intent IS NOT NULL AND seq <> ?3
         ORDER BY seq DESC LIMIT ?4",
        (Text(repo), Number(*number), delivery.seq, limit),
        read,
    )
}

/// Returns the first intent after `delivery` that was not ignored.
pub(crate) fn intent_after(
    connection: &Connection,
    delivery: &Delivery,
) -> Result<Option<Delivery>, QueryError> {
    let PullRequest { repo, number } = delivery.event.pull_request();
    sql::first(
        connection,
        "SELECT * FROM deliveries
         WHERE repo = ?1 AND number = ?2 AND intent IS NOT NULL AND state <> 'ignored'
           AND seq > ?3 ORDER BY seq LIMIT 1",
        (Text(repo), Number(*number), delivery.seq),
        read,
    )
}

/// Returns the last intent before `delivery` that was not ignored.
pub(crate) fn intent_before(
    connection: &Connection,
    delivery: &Delivery,
) -> Result<Option<Delivery>, QueryError> {
    let PullRequest { repo, number } = delivery.event.pull_request();
    sql::first(
        connection,
        "SELECT * FROM deliveries
         WHERE repo = ?1 AND number = ?2 AND intent IS NOT NULL AND state <> 'ignored'
           AND seq < ?3 ORDER BY seq DESC LIMIT 1",
        (Text(repo), Number(*number), delivery.seq),
        read,
    )
}

/// Returns the selected deliveries, the newest first.
pub(crate) fn list(
    connection: &Connection,
    filter: DeliveryFilter,
) -> Result<Vec<Delivery>, QueryError> {
    sql::all(
        connection,
        "SELECT * FROM deliveries
         WHERE (:repo IS NULL OR repo = :repo)
           AND (:number IS NULL OR number = :number)
           AND (:state IS NULL OR state = :state)
           AND (:before IS NULL OR seq < :before)
         ORDER BY seq DESC LIMIT :limit",
        named_params! {
            ":repo": filter.repo.map(Text),
            ":number": filter.number.map(Number),
            ":state": filter.state.map(Text),
            ":before": filter.before,
            ":limit": i64::try_from(filter.limit).unwrap_or(i64::MAX),
        },
        read,
    )
}

/// Returns the last delivery of each repository, ordered by repository.
pub(crate) fn last_of_each_repo(connection: &Connection) -> Result<Vec<Delivery>, QueryError> {
    sql::all(
        connection,
        "SELECT * FROM deliveries WHERE seq IN (SELECT max(seq) FROM deliveries GROUP BY repo)
         ORDER BY repo",
        (),
        read,
    )
}

/// Returns the number of the last delivery that arrived, 0 when none has.
pub(crate) fn last_seq(connection: &Connection) -> Result<i64, QueryError> {
    let query = "SELECT coalesce(max(seq), 0) FROM deliveries";
    sql::one(connection, query, (), |row| row.get(0))
}

pub(crate) fn insert(
    transaction: &Transaction<'_>,
    new: &NewDelivery,
    state: DeliveryState,
) -> Result<(), QueryError> {
    let event = &new.event;
    let pull_request = event.pull_request();
    let finished_at = (state != DeliveryState::Pending).then(Time::now);
    sql::execute(
        transaction,
        "INSERT INTO deliveries
         (id, repo, number, intent, comment, event, received_at, state, finished_at,
          finished_running)
         VALUES (:id, :repo, :number, :intent, :comment, :event, :received_at, :state, :finished_at,
                 iif(:finished_at IS NULL, NULL, (SELECT micros FROM running_time)))",
        named_params! {
            ":id": event.id(),
            ":repo": Text(&pull_request.repo),
            ":number": Number(pull_request.number),
            ":intent": intent(event).map(Text),
            ":comment": event.as_command().map(|command| Number(command.comment)),
            ":event": Json(event),
            ":received_at": Time(new.received_at),
            ":state": Text(state),
            ":finished_at": finished_at,
        },
    )?;
    Ok(())
}

/// Records the result of an attempt.
pub(crate) fn finish(
    transaction: &Transaction<'_>,
    id: &str,
    outcome: &DeliveryOutcome,
) -> Result<(), QueryError> {
    let (state, failure, backoff) = match outcome {
        DeliveryOutcome::Done => (DeliveryState::Done, None, None),
        DeliveryOutcome::Ignored(reason) => (DeliveryState::Ignored, reason.as_ref(), None),
        DeliveryOutcome::Failed(failure) => (DeliveryState::Failed, Some(failure), None),
        DeliveryOutcome::Retry { failure, after } => {
            (DeliveryState::Pending, Some(failure), Some(*after))
        }
    };
    let now = Time::now();
    let not_before = backoff.map(|backoff| {
        let backoff = SignedDuration::try_from(backoff).unwrap_or(MAX_BACKOFF);
        let backoff = backoff.min(MAX_BACKOFF);
        Time(now.0.saturating_add(backoff).unwrap_or(Timestamp::MAX))
    });
    let finished_at = not_before.is_none().then_some(now);
    sql::execute(
        transaction,
        "UPDATE deliveries SET state = :state, failure = :failure,
         attempts = attempts + 1, not_before = :not_before, finished_at = :finished_at,
         finished_running = iif(:finished_at IS NULL, NULL, (SELECT micros FROM running_time))
         WHERE id = :id",
        named_params! {
            ":id": id,
            ":state": Text(state),
            ":failure": failure.map(Json),
            ":not_before": not_before,
            ":finished_at": finished_at,
        },
    )?;
    Ok(())
}

/// Records that a command was executed, and that the intents before it are done: the preview's record contains their
/// wishes.
pub(crate) fn finish_command(transaction: &Transaction<'_>, id: &str) -> Result<(), QueryError> {
    sql::execute(
        transaction,
        "UPDATE deliveries SET state = 'done', failure = NULL, attempts = attempts + 1,
         not_before = NULL, finished_at = :now,
         finished_running = (SELECT micros FROM running_time)
         FROM (SELECT seq, repo, number FROM deliveries WHERE id = :id) AS command
         WHERE deliveries.repo = command.repo AND deliveries.number = command.number
           AND deliveries.state = 'pending'
           AND (deliveries.seq = command.seq
                OR deliveries.seq < command.seq AND deliveries.intent IS NOT NULL)",
        named_params! { ":id": id, ":now": Time::now() },
    )?;
    Ok(())
}

/// Makes a delivery pending again.
pub(crate) fn reset(transaction: &Transaction<'_>, id: &str) -> Result<(), QueryError> {
    sql::execute(
        transaction,
        "UPDATE deliveries SET state = 'pending', attempts = 0, not_before = NULL,
         failure = NULL, finished_at = NULL, finished_running = NULL WHERE id = ?1",
        [id],
    )?;
    Ok(())
}

/// Records that the newest intent of a pull request supersedes the earlier pending ones.
pub(crate) fn supersede(
    transaction: &Transaction<'_>,
    PullRequest { repo, number }: &PullRequest,
) -> Result<(), QueryError> {
    sql::execute(
        transaction,
        "UPDATE deliveries SET state = 'superseded', finished_at = ?3,
         finished_running = (SELECT micros FROM running_time)
         WHERE repo = ?1 AND number = ?2 AND state = 'pending' AND intent IS NOT NULL
           AND seq < (
               SELECT seq FROM deliveries
               WHERE repo = ?1 AND number = ?2 AND intent IS NOT NULL AND state <> 'ignored'
               ORDER BY seq DESC LIMIT 1)",
        (Text(repo), Number(*number), Time::now()),
    )?;
    Ok(())
}

/// Records that a command on the host supersedes the pending deliveries that request the preview.
pub(crate) fn override_present(
    transaction: &Transaction<'_>,
    PullRequest { repo, number }: &PullRequest,
) -> Result<(), QueryError> {
    sql::execute(
        transaction,
        "UPDATE deliveries SET state = 'superseded', not_before = NULL, finished_at = ?3,
         finished_running = (SELECT micros FROM running_time)
         WHERE repo = ?1 AND number = ?2 AND state = 'pending' AND intent = 'present'",
        (Text(repo), Number(*number), Time::now()),
    )?;
    Ok(())
}

/// Records that the deletion of a repository supersedes the pending deliveries that request its previews.
pub(crate) fn override_present_of_repo(
    transaction: &Transaction<'_>,
    repo: &RepoName,
) -> Result<(), QueryError> {
    sql::execute(
        transaction,
        "UPDATE deliveries SET state = 'superseded', not_before = NULL, finished_at = ?2,
         finished_running = (SELECT micros FROM running_time)
         WHERE repo = ?1 AND state = 'pending' AND intent = 'present'",
        (Text(repo), Time::now()),
    )?;
    Ok(())
}

/// Moves the deliveries of a repository to its new name.
pub(crate) fn rename_repo(
    transaction: &Transaction<'_>,
    former: &RepoName,
    now: &RepoName,
) -> Result<(), QueryError> {
    let update = "UPDATE deliveries SET repo = ?2 WHERE repo = ?1";
    sql::execute(transaction, update, (Text(former), Text(now)))?;
    Ok(())
}

/// Deletes finished deliveries: all but the newest `kept`, and those that finished before `expired_before`.
///
/// Old ones are deleted in order of arrival, up to the first that is young enough or not finished. So a delivery that is
/// pending for long keeps those behind it, which costs only space.
pub(crate) fn prune(
    transaction: &Transaction<'_>,
    kept: u32,
    expired_before: RunningTime,
) -> Result<(), QueryError> {
    sql::execute(
        transaction,
        "DELETE FROM deliveries WHERE state <> 'pending' AND (
             seq <= (SELECT seq FROM deliveries WHERE state <> 'pending'
                     ORDER BY seq DESC LIMIT 1 OFFSET ?1)
             OR seq < (SELECT seq FROM deliveries
                       WHERE finished_running IS NULL OR finished_running >= ?2
                       ORDER BY seq LIMIT 1))",
        (kept, expired_before),
    )?;
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    let event: DeliveryEvent = row.json("event")?;
    Ok(Delivery {
        seq: row.get("seq")?,
        // The column follows renames of the repository; the event does not.
        event: event.with_repo(row.text("repo")?),
        received_at: row.time("received_at")?,
        state: row.text("state")?,
        attempts: row.get("attempts")?,
        not_before: row.opt_time("not_before")?,
        failure: row.opt_failure("failure")?,
        finished_at: row.opt_time("finished_at")?,
    })
}
