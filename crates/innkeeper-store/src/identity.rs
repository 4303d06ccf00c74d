//! Who this daemon is, for marking what it makes on the host.

use innkeeper_model::DaemonId;

use crate::codec::Word;
use crate::connection::Store;
use crate::database::Durability;
use crate::error::StoreError;

/// The daemon's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Marks what the daemon makes.
    pub daemon: DaemonId,
    /// Whether what releases without identities made for the records of this database has been marked. From then on,
    /// an object without a mark is somebody else's.
    pub adopted: bool,
}

impl Store {
    /// The identity of the daemon that this database belongs to. It never changes.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn identity(&self) -> Result<Identity, StoreError> {
        let read = self.run("read the daemon's identity", |database| {
            let row = "SELECT daemon, adopted FROM identity";
            Ok(database.connection.query_row(row, (), |row| {
                let Word(daemon) = row.get("daemon")?;
                let adopted = row.get("adopted")?;
                Ok(Identity { daemon, adopted })
            })?)
        });
        read.await
    }

    /// Records that objects of former releases have been marked. On the disk when this returns.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn finish_adoption(&self) -> Result<(), StoreError> {
        let written = self.run("record that objects were adopted", |database| {
            database.write(Durability::Now, |transaction| {
                transaction.execute("UPDATE identity SET adopted = 1", ())?;
                Ok(())
            })
        });
        written.await
    }
}
