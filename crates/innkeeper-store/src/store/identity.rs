//! The daemon's identity, which marks its objects on the host.

use super::Store;
use crate::database::Durability;
use crate::error::StoreError;
use crate::sql::identity::{self, Identity};

impl Store {
    /// Returns the identity of the daemon that this database belongs to. It never changes.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn identity(&self) -> Result<Identity, StoreError> {
        self.read("read the daemon's identity", identity::read)
            .await
    }

    /// Records that objects of former releases have been marked. Durable.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn finish_adoption(&self) -> Result<(), StoreError> {
        let action = "record the adoption of objects";
        self.write(action, Durability::Now, identity::set_adopted)
            .await
    }
}
