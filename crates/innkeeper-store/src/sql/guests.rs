//! Table `guests`.

use innkeeper_model::{
    ClosureSource, DesiredState, FileWork, Guest, GuestKind, GuestName, IdlePolicy, Limits, Origin,
    RetainedId, Slot, StorePath,
};
use rusqlite::{Connection, Row, ToSql, Transaction, named_params};

use crate::clock::RunningTime;
use crate::codec::{Columns, Json, Text, Time};
use crate::error::{QueryError, StoreError};
use crate::sql;

/// A guest to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewGuest {
    /// The name.
    pub name: GuestName,
    /// The kind.
    pub kind: GuestKind,
    /// The source of the closure.
    pub source: ClosureSource,
    /// The closure, if it is known already.
    pub closure: Option<StorePath>,
    /// The limits.
    pub limits: Limits,
    /// The guest or snapshot whose files are copied; `None` for an empty file tree.
    pub origin: Option<Origin>,
    /// True if the host's configuration declares it.
    pub declared: bool,
    /// The use of its idle time; `None` for that of its kind.
    pub idle_policy: Option<IdlePolicy>,
}

pub(crate) fn find(connection: &Connection, name: &GuestName) -> Result<Option<Guest>, QueryError> {
    let query = "SELECT * FROM guests WHERE name = ?1";
    sql::first(connection, query, [Text(name)], read)
}

/// Returns a guest, or fails with [`StoreError::GuestNotFound`].
pub(crate) fn require(connection: &Connection, name: &GuestName) -> Result<Guest, QueryError> {
    find(connection, name)?.ok_or_else(|| not_found(name))
}

pub(crate) fn list(connection: &Connection) -> Result<Vec<Guest>, QueryError> {
    sql::all(connection, "SELECT * FROM guests ORDER BY name", (), read)
}

/// Returns the guests with a keepalive, and its end.
pub(crate) fn keepalives(
    connection: &Connection,
) -> Result<Vec<(GuestName, RunningTime)>, QueryError> {
    let query =
        "SELECT name, awake_until_running FROM guests WHERE awake_until_running IS NOT NULL";
    sql::all(connection, query, (), |row| {
        Ok((row.text("name")?, row.get("awake_until_running")?))
    })
}

/// Inserts a guest that should run. `owner` is the actor that creates an agent.
pub(crate) fn insert(
    transaction: &Transaction<'_>,
    new: NewGuest,
    slot: Slot,
    file_work: Option<&FileWork>,
    owner: Option<&str>,
) -> Result<Guest, QueryError> {
    sql::one(
        transaction,
        "INSERT INTO guests (name, kind, slot, slots, want, source, closure, limits, file_work, declared, idle_policy, owner, created_at)
         VALUES (:name, :kind, :slot, :slots, :want, :source, :closure, :limits, :file_work, :declared, :idle_policy, :owner, :created_at)
         RETURNING *",
        named_params! {
            ":name": Text(new.name),
            ":kind": Text(new.kind),
            ":slot": slot.number(),
            ":slots": new.limits.user_ids.slots(),
            ":want": Text(DesiredState::Running),
            ":source": Json(new.source),
            ":closure": new.closure.map(Text),
            ":limits": Json(new.limits),
            ":file_work": file_work.map(Json),
            ":declared": new.declared,
            ":idle_policy": new.idle_policy.map(Text),
            ":owner": owner,
            ":created_at": Time::now(),
        },
        read,
    )
}

/// Sets one column, or fails with [`StoreError::GuestNotFound`]. The column is never a caller's text.
pub(crate) fn set(
    transaction: &Transaction<'_>,
    name: &GuestName,
    column: &'static str,
    value: &dyn ToSql,
) -> Result<(), QueryError> {
    let update = format!("UPDATE guests SET {column} = ?2 WHERE name = ?1");
    match sql::execute(transaction, &update, (Text(name), value))? {
        0 => Err(not_found(name)),
        _ => Ok(()),
    }
}

/// Sets one column to NULL; see [`set`].
pub(crate) fn clear(
    transaction: &Transaction<'_>,
    name: &GuestName,
    column: &'static str,
) -> Result<(), QueryError> {
    set(transaction, name, column, &None::<String>)
}

/// Deletes a guest and returns its first slot and the number of its slots, if the guest exists.
pub(crate) fn delete(
    transaction: &Transaction<'_>,
    name: &GuestName,
) -> Result<Option<(Slot, u32)>, QueryError> {
    let delete = "DELETE FROM guests WHERE name = ?1 RETURNING slot, slots";
    sql::first(transaction, delete, [Text(name)], |row| {
        Ok((Slot::new(row.get(0)?), row.get(1)?))
    })
}

fn not_found(name: &GuestName) -> QueryError {
    StoreError::GuestNotFound { name: name.clone() }.into()
}

fn read(row: &Row<'_>) -> rusqlite::Result<Guest> {
    let retain: Option<i64> = row.get("retain")?;
    let last_change: Option<String> = row.get("last_change")?;
    let own_system: Option<String> = row.get("own_system")?;
    Ok(Guest {
        name: row.text("name")?,
        kind: row.text("kind")?,
        slot: Slot::new(row.get("slot")?),
        desired: row.text("want")?,
        level: row.text("level")?,
        source: row.json("source")?,
        closure: row.opt_text("closure")?,
        limits: row.json("limits")?,
        ssh_host_key: row.get("ssh_host_key")?,
        fault: row.opt_failure("fault")?,
        wake_failure: row.opt_failure("wake_failure")?,
        file_work: row.opt_json("file_work")?,
        retain: retain.map(RetainedId),
        change: row.opt_json("closure_change")?,
        // One of a newer version must not hide the guest. The next start finds out about its own system again.
        last_change: last_change.and_then(|json| serde_json::from_str(&json).ok()),
        own_system: own_system.and_then(|json| serde_json::from_str(&json).ok()),
        declared: row.get("declared")?,
        idle_policy: row.opt_text("idle_policy")?,
        owner: row.get("owner")?,
        created_at: row.time("created_at")?,
    })
}
