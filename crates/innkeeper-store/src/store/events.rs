//! The event log. Events have consecutive numbers, so that a client that follows an operation misses none.

use innkeeper_model::{Event, EventKind, GuestName, OperationId};

use super::Store;
use crate::codec::Time;
use crate::database::{Database, Durability};
use crate::error::StoreError;
use crate::sql::events::{self, EventFilter};
use crate::sql::operations;

/// The number of events that are kept.
const KEPT_EVENTS: u32 = 10_000;

/// The number of ended operations that are kept.
const KEPT_OPERATIONS: u32 = 1_000;

impl Store {
    /// Records an event without waiting: every later request to this store comes after it.
    ///
    /// `on_recorded` gets the event with its number, which is higher than all before, or the error. The store's thread
    /// calls it for one event after the other, in the order of their numbers; it must not block.
    ///
    /// [`EventKind::Progress`] is not stored and has the number 0. At intervals, the oldest events and the oldest ended
    /// operations are deleted; 10,000 and 1,000 are kept.
    pub fn append_event(
        &self,
        operation: Option<OperationId>,
        guest: Option<&GuestName>,
        kind: EventKind,
        on_recorded: impl FnOnce(Result<Event, StoreError>) + Send + 'static,
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
            let is_due = database.events.is_due();
            event.seq = database.write(Durability::Soon, |transaction| {
                if is_due {
                    events::prune(transaction, KEPT_EVENTS)?;
                    operations::prune(transaction, KEPT_OPERATIONS)?;
                }
                events::append(transaction, &event)
            })?;
            if is_due {
                database.events.reset();
            }
            database.events.add(1);
            Ok(event)
        };
        self.send("record an event", work, on_recorded);
    }

    /// Returns the selected events, the oldest first.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn events(&self, filter: EventFilter) -> Result<Vec<Event>, StoreError> {
        self.read("read the events", move |connection| {
            events::list(connection, filter)
        })
        .await
    }

    /// Returns the number of the newest event, 0 before the first.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn last_event_seq(&self) -> Result<i64, StoreError> {
        self.read("read the newest event", events::last_seq).await
    }
}
