//! Table `audit`.

use innkeeper_model::access::AuditEntry;
use jiff::Timestamp;
use rusqlite::{Connection, Row, Transaction, named_params};

use crate::clock::RunningTime;
use crate::codec::{Columns, Time};
use crate::error::QueryError;
use crate::sql;

/// A request for a change, before it is carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAuditEntry {
    /// The actor.
    pub actor: String,
    /// The client's address; `None` for a client on the host.
    pub source: Option<String>,
    /// The request.
    pub verb: String,
    /// The object that it concerns, if the request names one.
    pub object: Option<String>,
}

/// Selects audit entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Only those of this actor, of a token with this name, or of the person with this login.
    pub actor: Option<String>,
    /// Only those from this time on.
    pub since: Option<Timestamp>,
    /// The maximum number of entries; the newest are kept.
    pub limit: usize,
}

/// Inserts an entry without a result and returns its number.
pub(crate) fn insert(
    transaction: &Transaction<'_>,
    new: &NewAuditEntry,
    now: RunningTime,
) -> Result<i64, QueryError> {
    sql::execute(
        transaction,
        "INSERT INTO audit (time, began_running, actor, source, verb, object)
         VALUES (:time, :began_running, :actor, :source, :verb, :object)",
        named_params! {
            ":time": Time::now(),
            ":began_running": now,
            ":actor": new.actor,
            ":source": new.source,
            ":verb": new.verb,
            ":object": new.object,
        },
    )?;
    Ok(transaction.last_insert_rowid())
}

/// Records the result of a request, and its object if that was not known before or begins with the known one. The entry may have
/// been pruned meanwhile.
pub(crate) fn finish(
    transaction: &Transaction<'_>,
    seq: i64,
    object: Option<&str>,
    result: &str,
) -> Result<(), QueryError> {
    sql::execute(
        transaction,
        "UPDATE audit SET result = ?3,
             object = CASE substr(?2, 1, length(object)) WHEN object THEN ?2 ELSE coalesce(object, ?2) END
         WHERE seq = ?1 AND result IS NULL",
        (seq, object, result),
    )?;
    Ok(())
}

/// Returns the selected entries, the oldest first.
pub(crate) fn list(
    connection: &Connection,
    filter: &AuditFilter,
) -> Result<Vec<AuditEntry>, QueryError> {
    let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
    let mut entries = sql::all(
        connection,
        "SELECT audit.*, tokens.name AS token, persons.login AS login FROM audit
         LEFT JOIN tokens ON audit.actor = 'token:' || tokens.id
         LEFT JOIN persons ON audit.actor = 'github:' || persons.id
         WHERE (:actor IS NULL OR audit.actor = :actor OR tokens.name = :actor OR persons.login = :actor)
             AND (:since IS NULL OR audit.time >= :since)
         ORDER BY audit.seq DESC LIMIT :limit",
        named_params! {
            ":actor": filter.actor,
            ":since": filter.since.map(Time),
            ":limit": limit,
        },
        read,
    )?;
    entries.reverse();
    Ok(entries)
}

/// Deletes all but the newest `kept` entries, and those that began before a running time.
pub(crate) fn prune(
    transaction: &Transaction<'_>,
    kept: u32,
    before: RunningTime,
) -> Result<(), QueryError> {
    sql::execute(
        transaction,
        "DELETE FROM audit
         WHERE seq < (SELECT seq FROM audit WHERE began_running >= ?1 ORDER BY seq LIMIT 1)
             OR seq <= (SELECT seq FROM audit ORDER BY seq DESC LIMIT 1 OFFSET ?2)",
        (before, kept),
    )?;
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<AuditEntry> {
    Ok(AuditEntry {
        seq: row.get("seq")?,
        time: row.time("time")?,
        actor: row.get("actor")?,
        token: row.opt_text("token")?,
        login: row.opt_text("login")?,
        source: row.get("source")?,
        verb: row.get("verb")?,
        object: row.get("object")?,
        result: row.get("result")?,
    })
}
