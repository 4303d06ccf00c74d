//! What was asked for, and how it ended.

use innkeeper_model::{Code, Failure, GuestName, Operation, OperationId, OperationState, Verb};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, named_params};

use crate::codec::{self, Json, Time, Word};
use crate::connection::Store;
use crate::database::Durability;
use crate::error::{QueryError, StoreError};
use crate::guests;

impl Store {
    /// Records an operation that concerns no guest, such as a build. Durable.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn begin_operation(&self, verb: Verb, actor: &str) -> Result<Operation, StoreError> {
        let actor = actor.to_owned();
        self.run("record an operation", move |database| {
            if verb == Verb::Build {
                database.require_space()?;
            }
            database.write(Durability::Now, |transaction| {
                begin(transaction, None, verb, &actor)
            })
        })
        .await
    }

    /// Records that the daemon brings a guest back of its own accord. Nothing when there is no such guest, or
    /// when an operation on it has not ended: that one does the work then. Durable soon.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn begin_restore(
        &self,
        guest: &GuestName,
        actor: &str,
    ) -> Result<Option<Operation>, StoreError> {
        let (guest, actor) = (guest.clone(), actor.to_owned());
        self.run("record an operation", move |database| {
            database.write(Durability::Soon, |transaction| {
                let there = guests::find(transaction, &guest)?.is_some();
                if !there || running_on(transaction, &guest)?.is_some() {
                    return Ok(None);
                }
                begin(transaction, Some(&guest), Verb::Restore, &actor).map(Some)
            })
        })
        .await
    }

    /// Records that an operation ended: as asked, or with a failure. One that ended before stays as it is.
    /// Durable soon: what is lost with the machine's power is carried out again, which is harmless. Durable at once
    /// when it made a guest run: what is carried out again and fails then is taken back, with what the guest has become
    /// since.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn finish_operation(
        &self,
        id: OperationId,
        failure: Option<&Failure>,
    ) -> Result<(), StoreError> {
        let failure = failure.cloned();
        self.run("record how an operation ended", move |database| {
            let started = database
                .connection
                .prepare_cached(
                    "SELECT 1 FROM operations WHERE id = ?1 AND verb IN ('create', 'fork', 'start', 'undelete')",
                )?
                .exists([id.0])?;
            let durability = if started && failure.is_none() {
                Durability::Now
            } else {
                Durability::Soon
            };
            database.write(durability, |transaction| {
                end(transaction, id, failure.as_ref())
            })
        })
        .await
    }

    /// An operation by its number.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn operation(&self, id: OperationId) -> Result<Option<Operation>, StoreError> {
        self.run("read an operation", move |database| {
            let operation = database
                .connection
                .prepare_cached("SELECT * FROM operations WHERE id = ?1")?
                .query_row([id.0], read)
                .optional()?;
            Ok(operation)
        })
        .await
    }

    /// The newest operation on a guest, whether it has ended or not.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn last_operation_on(
        &self,
        guest: &GuestName,
    ) -> Result<Option<Operation>, StoreError> {
        let guest = guest.clone();
        self.run("read the operations", move |database| {
            let operation = database
                .connection
                .prepare_cached(
                    "SELECT * FROM operations WHERE guest = ?1 ORDER BY id DESC LIMIT 1",
                )?
                .query_row([Word(&guest)], read)
                .optional()?;
            Ok(operation)
        })
        .await
    }

    /// The operations that have not ended, the oldest first.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn running_operations(&self) -> Result<Vec<Operation>, StoreError> {
        self.run("read the operations", |database| {
            let operations = database
                .connection
                .prepare_cached("SELECT * FROM operations WHERE state = 'running' ORDER BY id")?
                .query_map((), read)?
                .collect::<Result<_, _>>()?;
            Ok(operations)
        })
        .await
    }
}

/// Records an operation.
pub(crate) fn begin(
    transaction: &Transaction<'_>,
    guest: Option<&GuestName>,
    verb: Verb,
    actor: &str,
) -> Result<Operation, QueryError> {
    let operation = transaction
        .prepare_cached(
            "INSERT INTO operations (guest, verb, state, actor, started_at)
             VALUES (:guest, :verb, 'running', :actor, :started_at)
             RETURNING *",
        )?
        .query_row(
            named_params! {
                ":guest": guest.map(Word),
                ":verb": Word(verb),
                ":actor": actor,
                ":started_at": Time::now(),
            },
            read,
        )?;
    Ok(operation)
}

/// Records that an operation ended, unless it had.
pub(crate) fn end(
    transaction: &Transaction<'_>,
    id: OperationId,
    failure: Option<&Failure>,
) -> Result<(), QueryError> {
    let state = match failure {
        None => OperationState::Done,
        Some(_) => OperationState::Failed,
    };
    transaction
        .prepare_cached(
            "UPDATE operations SET state = ?2, finished_at = ?3, failure = ?4
             WHERE id = ?1 AND state = 'running'",
        )?
        .execute((id.0, Word(state), Time::now(), failure.map(Json)))?;
    Ok(())
}

/// Begins an operation in the place of the one that is running on the same guest.
pub(crate) fn supersede(
    transaction: &Transaction<'_>,
    running: &Operation,
    verb: Verb,
    actor: &str,
) -> Result<Operation, QueryError> {
    // The old one has to end first, since only one may run, and it should name the new one. Within this
    // transaction nobody else takes the next number.
    let next: i64 = transaction
        .prepare_cached("SELECT seq + 1 FROM sqlite_sequence WHERE name = 'operations'")?
        .query_row((), |row| row.get(0))?;
    let failure = Failure::new(
        Code::GuestBusy,
        format!("superseded by operation {next} ({verb})"),
    );
    end(transaction, running.id, Some(&failure))?;
    begin(transaction, running.guest.as_ref(), verb, actor)
}

/// The operation on a guest that has not ended. There is at most one.
pub(crate) fn running_on(
    connection: &Connection,
    guest: &GuestName,
) -> Result<Option<Operation>, QueryError> {
    let operation = connection
        .prepare_cached("SELECT * FROM operations WHERE guest = ?1 AND state = 'running'")?
        .query_row([Word(guest)], read)
        .optional()?;
    Ok(operation)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Operation> {
    let guest: Option<Word<_>> = row.get("guest")?;
    let finished_at: Option<Time> = row.get("finished_at")?;
    let failure: Option<String> = row.get("failure")?;
    Ok(Operation {
        id: OperationId(row.get("id")?),
        guest: guest.map(|word| word.0),
        verb: row.get::<_, Word<_>>("verb")?.0,
        state: row.get::<_, Word<_>>("state")?.0,
        actor: row.get("actor")?,
        started_at: row.get::<_, Time>("started_at")?.0,
        finished_at: finished_at.map(|time| time.0),
        failure: failure.as_deref().map(codec::failure),
    })
}
