//! Table `events`.

use innkeeper_model::{Event, GuestName, OperationId};
use rusqlite::{Connection, Row, Transaction, named_params};

use crate::codec::{Columns, Json, Text, Time};
use crate::error::QueryError;
use crate::sql;

/// Selects events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventFilter {
    /// Only events with a higher number; 0 for all.
    pub after: i64,
    /// Only events of this operation.
    pub operation: Option<OperationId>,
    /// Only events that concern this guest.
    pub guest: Option<GuestName>,
    /// The maximum number of events; the oldest are kept.
    pub limit: usize,
    /// Makes the limit keep the newest events instead. The order of the result is the same.
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

/// Inserts an event and returns its number.
pub(crate) fn append(transaction: &Transaction<'_>, event: &Event) -> Result<i64, QueryError> {
    sql::execute(
        transaction,
        "INSERT INTO events (time, operation, guest, kind)
         VALUES (:time, :operation, :guest, :kind)",
        named_params! {
            ":time": Time(event.time),
            ":operation": event.operation.map(|id| id.0),
            ":guest": event.guest.as_ref().map(Text),
            ":kind": Json(&event.kind),
        },
    )?;
    Ok(transaction.last_insert_rowid())
}

/// Returns the selected events, the oldest first.
pub(crate) fn list(connection: &Connection, filter: EventFilter) -> Result<Vec<Event>, QueryError> {
    // One statement for each combination, so that each uses its index.
    let of_operation = filter
        .operation
        .map_or("", |_| "AND operation = :operation");
    let of_guest = filter.guest.as_ref().map_or("", |_| "AND guest = :guest");
    let order = if filter.newest { "DESC" } else { "ASC" };
    let query = format!(
        "SELECT * FROM events WHERE seq > :after {of_operation} {of_guest}
         ORDER BY seq {order} LIMIT :limit"
    );
    let (operation, guest) = (filter.operation.map(|id| id.0), filter.guest.map(Text));
    let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
    let mut parameters: Vec<(&str, &dyn rusqlite::ToSql)> =
        vec![(":after", &filter.after), (":limit", &limit)];
    if operation.is_some() {
        parameters.push((":operation", &operation));
    }
    if guest.is_some() {
        parameters.push((":guest", &guest));
    }
    let mut events = sql::all(connection, &query, parameters.as_slice(), read)?;
    if filter.newest {
        events.reverse();
    }
    Ok(events)
}

/// Returns the number of the newest event, 0 when the table is empty.
pub(crate) fn last_seq(connection: &Connection) -> Result<i64, QueryError> {
    let query = "SELECT coalesce(max(seq), 0) FROM events";
    sql::one(connection, query, (), |row| row.get(0))
}

/// Deletes all but the newest `kept` events.
pub(crate) fn prune(transaction: &Transaction<'_>, kept: u32) -> Result<(), QueryError> {
    sql::execute(
        transaction,
        "DELETE FROM events
         WHERE seq <= (SELECT seq FROM events ORDER BY seq DESC LIMIT 1 OFFSET ?1)",
        [kept],
    )?;
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<Event> {
    let operation: Option<i64> = row.get("operation")?;
    Ok(Event {
        seq: row.get("seq")?,
        time: row.time("time")?,
        operation: operation.map(OperationId),
        guest: row.opt_text("guest")?,
        kind: row.event_kind("kind")?,
    })
}
