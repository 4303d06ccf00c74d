//! Table `identity`: one row about this daemon.

use innkeeper_model::DaemonId;
use rusqlite::{Connection, Transaction};

use crate::codec::Columns;
use crate::error::QueryError;
use crate::sql;

/// The daemon's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Marks what the daemon creates on the host.
    pub daemon: DaemonId,
    /// True once the objects that releases without identities created for this database's records have been marked. From
    /// then on, an object without a mark is foreign.
    pub adopted: bool,
}

pub(crate) fn read(connection: &Connection) -> Result<Identity, QueryError> {
    sql::one(
        connection,
        "SELECT daemon, adopted FROM identity",
        (),
        |row| {
            Ok(Identity {
                daemon: row.text("daemon")?,
                adopted: row.get("adopted")?,
            })
        },
    )
}

pub(crate) fn set_adopted(transaction: &Transaction<'_>) -> Result<(), QueryError> {
    sql::execute(transaction, "UPDATE identity SET adopted = 1", ())?;
    Ok(())
}
