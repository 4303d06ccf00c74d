//! Checks of commits that have not ended on GitHub, so that each one ends.

use super::Store;
use crate::database::Durability;
use crate::error::StoreError;
use crate::sql::checks::{self, OpenCheck};

impl Store {
    /// Records a check before GitHub shows it. Durable: a forgotten check would never end.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn open_check(&self, check: OpenCheck) -> Result<(), StoreError> {
        self.write(
            "record an open check",
            Durability::Now,
            move |transaction| checks::replace(transaction, &check),
        )
        .await
    }

    /// Deletes a check that has ended on GitHub, unless it is to report another situation by now.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn close_check(&self, check: OpenCheck) -> Result<(), StoreError> {
        self.write(
            "delete a check that ended",
            Durability::Soon,
            move |transaction| checks::delete(transaction, &check),
        )
        .await
    }

    /// Returns the checks that have not ended on GitHub.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn open_checks(&self) -> Result<Vec<OpenCheck>, StoreError> {
        self.read("read the open checks", checks::list).await
    }
}
