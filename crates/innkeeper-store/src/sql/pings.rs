//! Table `pings`: the last ping of each webhook.

use innkeeper_model::preview::{HookProblem, PingEvent};
use jiff::Timestamp;
use rusqlite::{Connection, Transaction};

use crate::codec::{Columns, Json, Time};
use crate::error::QueryError;
use crate::sql;

/// The number of rows that are kept.
const KEPT: u32 = 1000;

/// The last ping of a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ping {
    /// The repository or organization that the webhook belongs to.
    pub owner: String,
    /// Time of its arrival.
    pub received_at: Timestamp,
    /// The wrong settings at that time.
    pub problems: Vec<HookProblem>,
}

/// Returns the last ping of each webhook, ordered by owner.
pub(crate) fn list(connection: &Connection) -> Result<Vec<Ping>, QueryError> {
    sql::all(
        connection,
        "SELECT * FROM pings ORDER BY owner",
        (),
        |row| {
            Ok(Ping {
                owner: row.get("owner")?,
                received_at: row.time("received_at")?,
                problems: row.json("problems")?,
            })
        },
    )
}

/// Records a ping in place of the former one, and deletes the oldest rows beyond the limit.
pub(crate) fn replace(
    transaction: &Transaction<'_>,
    ping: &PingEvent,
    received_at: Timestamp,
) -> Result<(), QueryError> {
    sql::execute(
        transaction,
        "INSERT OR REPLACE INTO pings (owner, received_at, problems) VALUES (?1, ?2, ?3)",
        (&ping.owner, Time(received_at), Json(&ping.problems)),
    )?;
    let delete = "DELETE FROM pings WHERE owner NOT IN
        (SELECT owner FROM pings ORDER BY received_at DESC LIMIT ?1)";
    sql::execute(transaction, delete, [KEPT])?;
    Ok(())
}
