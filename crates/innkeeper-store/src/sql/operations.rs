//! Table `operations`.

use innkeeper_model::{Code, Failure, GuestName, Operation, OperationId, OperationState, Verb};
use rusqlite::{Connection, Row, Transaction, named_params};

use crate::codec::{Columns, Json, Text, Time};
use crate::error::QueryError;
use crate::sql;

/// Inserts a running operation. Builds concern no guest.
pub(crate) fn begin(
    transaction: &Transaction<'_>,
    guest: Option<&GuestName>,
    verb: Verb,
    actor: &str,
) -> Result<Operation, QueryError> {
    sql::one(
        transaction,
        "INSERT INTO operations (guest, verb, state, actor, started_at)
         VALUES (:guest, :verb, 'running', :actor, :started_at)
         RETURNING *",
        named_params! {
            ":guest": guest.map(Text),
            ":verb": Text(verb),
            ":actor": actor,
            ":started_at": Time::now(),
        },
        read,
    )
}

/// Records that an operation ended. One that ended before stays as it is.
pub(crate) fn end(
    transaction: &Transaction<'_>,
    id: OperationId,
    failure: Option<&Failure>,
) -> Result<(), QueryError> {
    let state = match failure {
        None => OperationState::Done,
        Some(_) => OperationState::Failed,
    };
    sql::execute(
        transaction,
        "UPDATE operations SET state = ?2, finished_at = ?3, failure = ?4
         WHERE id = ?1 AND state = 'running'",
        (id.0, Text(state), Time::now(), failure.map(Json)),
    )?;
    Ok(())
}

/// Records the failure of an operation whose rollback begins. One that ended before stays as it is.
pub(crate) fn begin_rollback(
    transaction: &Transaction<'_>,
    id: OperationId,
    failure: &Failure,
) -> Result<(), QueryError> {
    sql::execute(
        transaction,
        "UPDATE operations SET rollback = ?2 WHERE id = ?1 AND state = 'running'",
        (id.0, Json(failure)),
    )?;
    Ok(())
}

/// Returns the failure of a running operation whose rollback has begun.
pub(crate) fn rollback(
    connection: &Connection,
    id: OperationId,
) -> Result<Option<Failure>, QueryError> {
    let query = "SELECT rollback FROM operations
                 WHERE id = ?1 AND state = 'running' AND rollback IS NOT NULL";
    let found = sql::first(connection, query, [id.0], |row| row.opt_failure("rollback"))?;
    Ok(found.flatten())
}

/// Begins an operation in place of the one that is running on the same guest.
pub(crate) fn supersede(
    transaction: &Transaction<'_>,
    running: &Operation,
    verb: Verb,
    actor: &str,
) -> Result<Operation, QueryError> {
    // The running operation must end first, since only one may run, and its failure names the new one. Within this
    // transaction no other writer takes the next number.
    let query = "SELECT seq + 1 FROM sqlite_sequence WHERE name = 'operations'";
    let next: i64 = sql::one(transaction, query, (), |row| row.get(0))?;
    let failure = Failure::new(
        Code::GuestBusy,
        format!("superseded by operation {next} ({verb})"),
    );
    end(transaction, running.id, Some(&failure))?;
    begin(transaction, running.guest.as_ref(), verb, actor)
}

pub(crate) fn find(
    connection: &Connection,
    id: OperationId,
) -> Result<Option<Operation>, QueryError> {
    let query = "SELECT * FROM operations WHERE id = ?1";
    sql::first(connection, query, [id.0], read)
}

/// Returns the operation that runs on a guest. At most one does.
pub(crate) fn running_on(
    connection: &Connection,
    guest: &GuestName,
) -> Result<Option<Operation>, QueryError> {
    let query = "SELECT * FROM operations WHERE guest = ?1 AND state = 'running'";
    sql::first(connection, query, [Text(guest)], read)
}

/// Returns the newest operation on a guest.
pub(crate) fn last_on(
    connection: &Connection,
    guest: &GuestName,
) -> Result<Option<Operation>, QueryError> {
    let query = "SELECT * FROM operations WHERE guest = ?1 ORDER BY id DESC LIMIT 1";
    sql::first(connection, query, [Text(guest)], read)
}

/// Returns the running operations, the oldest first.
pub(crate) fn running(connection: &Connection) -> Result<Vec<Operation>, QueryError> {
    let query = "SELECT * FROM operations WHERE state = 'running' ORDER BY id";
    sql::all(connection, query, (), read)
}

/// Reports whether an operation makes a guest run.
pub(crate) fn starts_guest(connection: &Connection, id: OperationId) -> Result<bool, QueryError> {
    sql::exists(
        connection,
        "SELECT 1 FROM operations WHERE id = ?1 AND verb IN ('create', 'fork', 'start', 'undelete')",
        [id.0],
    )
}

/// Deletes all but the newest `kept` operations that ended. Running ones stay, however old they are.
pub(crate) fn prune(transaction: &Transaction<'_>, kept: u32) -> Result<(), QueryError> {
    sql::execute(
        transaction,
        "DELETE FROM operations
         WHERE state <> 'running' AND id <= (
             SELECT id FROM operations WHERE state <> 'running'
             ORDER BY id DESC LIMIT 1 OFFSET ?1)",
        [kept],
    )?;
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<Operation> {
    Ok(Operation {
        id: OperationId(row.get("id")?),
        guest: row.opt_text("guest")?,
        verb: row.text("verb")?,
        state: row.text("state")?,
        actor: row.get("actor")?,
        started_at: row.time("started_at")?,
        finished_at: row.opt_time("finished_at")?,
        failure: row.opt_failure("failure")?,
    })
}
