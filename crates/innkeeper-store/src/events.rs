//! What happened, in order, so that whoever follows an operation misses nothing.

use innkeeper_model::{Event, EventKind, GuestName, OperationId};
use rusqlite::{Row, Transaction, named_params};

use crate::codec::{self, Json, Time, Word};
use crate::connection::Store;
use crate::database::{Database, Durability};
use crate::error::{QueryError, StoreError};

/// How many events are kept.
const KEPT_EVENTS: u32 = 10_000;

/// How many operations that ended are kept.
const KEPT_OPERATIONS: u32 = 1_000;

/// After how many events old ones are deleted. Until then there may be as many more.
const PRUNE_EVERY: u32 = 256;

/// Which events are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventFilter {
    /// Only those with a higher number; 0 for all.
    pub after: i64,
    /// Only those of this operation.
    pub operation: Option<OperationId>,
    /// Only those that concern this guest.
    pub guest: Option<GuestName>,
    /// At most so many, the oldest ones.
    pub limit: usize,
    /// Whether the limit leaves the newest ones instead. They are given in the same order.
    pub newest: bool,
}

impl Default for EventFilter {
    /// All events.
    fn default() -> Self {
        Self {
            after: 0,
            operation: None,
            guest: None,
            limit: usize::MAX,
            newest: false,
        }
    }
}

impl Store {
    /// Records that something happened, and does not wait for it: whatever is asked of this store from now on comes
    /// after it. `told` is called with the event and its number, which is higher than all before, or with what the
    /// disk or SQLite said; it is called for one event after the other, in the order of their numbers, by the
    /// thread that everybody waits for.
    ///
    /// [`EventKind::Progress`] is not stored and has the number 0. From time to time the oldest events and
    /// the oldest operations that ended are deleted; 10,000 and 1,000 are kept.
    pub fn append_event(
        &self,
        operation: Option<OperationId>,
        guest: Option<&GuestName>,
        kind: EventKind,
        told: impl FnOnce(Result<Event, StoreError>) + Send + 'static,
    ) {
        let mut event = Event {
            seq: 0,
            time: Time::now().0,
            operation,
            guest: guest.cloned(),
            kind,
        };
        let work = move |database: &mut Database| {
            if matches!(event.kind, EventKind::Progress { .. }) {
                return Ok(event);
            }
            let due = database
                .since_prune
                .is_none_or(|count| count >= PRUNE_EVERY);
            event.seq = database.write(Durability::Soon, |transaction| {
                if due {
                    prune(transaction)?;
                }
                append(transaction, &event)
            })?;
            let before = database.since_prune.filter(|_| !due).unwrap_or(0);
            database.since_prune = Some(before + 1);
            Ok(event)
        };
        self.send("record an event", work, told);
    }

    /// The events that a filter lets through, the oldest first.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn events(&self, filter: EventFilter) -> Result<Vec<Event>, StoreError> {
        self.run("read the events", move |database| {
            // One statement for each combination, so that each uses its index.
            let of_operation = filter
                .operation
                .map_or("", |_| "AND operation = :operation");
            let of_guest = filter.guest.as_ref().map_or("", |_| "AND guest = :guest");
            let order = if filter.newest { "DESC" } else { "ASC" };
            let sql = format!(
                "SELECT * FROM events WHERE seq > :after {of_operation} {of_guest}
                 ORDER BY seq {order} LIMIT :limit"
            );
            let (operation, guest) = (filter.operation.map(|id| id.0), filter.guest.map(Word));
            let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
            let mut parameters: Vec<(&str, &dyn rusqlite::ToSql)> =
                vec![(":after", &filter.after), (":limit", &limit)];
            if operation.is_some() {
                parameters.push((":operation", &operation));
            }
            if guest.is_some() {
                parameters.push((":guest", &guest));
            }
            let mut events = database
                .connection
                .prepare_cached(&sql)?
                .query_map(parameters.as_slice(), read)?
                .collect::<Result<Vec<_>, _>>()?;
            if filter.newest {
                events.reverse();
            }
            Ok(events)
        })
        .await
    }

    /// The number of the newest event ever recorded, 0 when there was none.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn last_event_seq(&self) -> Result<i64, StoreError> {
        self.run("read the newest event", |database| {
            let seq = database
                .connection
                .prepare_cached("SELECT coalesce(max(seq), 0) FROM events")?
                .query_row((), |row| row.get(0))?;
            Ok(seq)
        })
        .await
    }
}

fn append(transaction: &Transaction<'_>, event: &Event) -> Result<i64, QueryError> {
    transaction
        .prepare_cached(
            "INSERT INTO events (time, operation, guest, kind)
             VALUES (:time, :operation, :guest, :kind)",
        )?
        .execute(named_params! {
            ":time": Time(event.time),
            ":operation": event.operation.map(|id| id.0),
            ":guest": event.guest.as_ref().map(Word),
            ":kind": Json(&event.kind),
        })?;
    Ok(transaction.last_insert_rowid())
}

/// Deletes what is too old. Operations that have not ended stay, however old they are.
fn prune(transaction: &Transaction<'_>) -> Result<(), QueryError> {
    transaction
        .prepare_cached(
            "DELETE FROM events
             WHERE seq <= (SELECT seq FROM events ORDER BY seq DESC LIMIT 1 OFFSET ?1)",
        )?
        .execute([KEPT_EVENTS])?;
    transaction
        .prepare_cached(
            "DELETE FROM operations
             WHERE state <> 'running' AND id <= (
                 SELECT id FROM operations WHERE state <> 'running'
                 ORDER BY id DESC LIMIT 1 OFFSET ?1)",
        )?
        .execute([KEPT_OPERATIONS])?;
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<Event> {
    let guest: Option<Word<_>> = row.get("guest")?;
    let operation: Option<i64> = row.get("operation")?;
    Ok(Event {
        seq: row.get("seq")?,
        time: row.get::<_, Time>("time")?.0,
        operation: operation.map(OperationId),
        guest: guest.map(|word| word.0),
        kind: codec::event_kind(row.get("kind")?),
    })
}
