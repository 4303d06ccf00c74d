//! Operations: requested work and its result.

use innkeeper_model::{Failure, GuestName, Operation, OperationId, Verb};

use super::Store;
use crate::database::Durability;
use crate::error::StoreError;
use crate::sql::{guests, operations};

impl Store {
    /// Begins an operation that concerns no guest, such as a build. Durable.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn begin_operation(&self, verb: Verb, actor: &str) -> Result<Operation, StoreError> {
        let actor = actor.to_owned();
        self.run("record an operation", move |database| {
            if verb == Verb::Build {
                database.require_space()?;
            }
            database.write(Durability::Now, |transaction| {
                operations::begin(transaction, None, verb, &actor)
            })
        })
        .await
    }

    /// Begins the operation in which the daemon restarts a guest on its own. Returns `None` when the guest does not exist,
    /// or when an operation runs on it, which then does the work. Durable soon.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn begin_restore(
        &self,
        guest: &GuestName,
        actor: &str,
    ) -> Result<Option<Operation>, StoreError> {
        let (guest, actor) = (guest.clone(), actor.to_owned());
        self.write(
            "record an operation",
            Durability::Soon,
            move |transaction| {
                if guests::find(transaction, &guest)?.is_none()
                    || operations::running_on(transaction, &guest)?.is_some()
                {
                    return Ok(None);
                }
                operations::begin(transaction, Some(&guest), Verb::Restore, &actor).map(Some)
            },
        )
        .await
    }

    /// Records the result of an operation. One that ended before stays as it is.
    ///
    /// Durable soon: an operation whose end is lost with the machine's power is repeated, which is harmless. Durable at
    /// once when the operation made a guest run: if it were repeated and failed, its rollback would destroy the guest with
    /// everything written since.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn finish_operation(
        &self,
        id: OperationId,
        failure: Option<&Failure>,
    ) -> Result<(), StoreError> {
        let failure = failure.cloned();
        self.run("record the result of an operation", move |database| {
            let started = operations::starts_guest(&database.connection, id)?;
            let durability = if started && failure.is_none() {
                Durability::Now
            } else {
                Durability::Soon
            };
            database.write(durability, |transaction| {
                operations::end(transaction, id, failure.as_ref())
            })
        })
        .await
    }

    /// Records that an operation failed and is rolled back from now on. Durable, so that the next daemon completes a rollback
    /// that a crash interrupted ([`Self::rollback_of`]), and does not mistake its result for that of the operation.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn begin_rollback(
        &self,
        id: OperationId,
        failure: &Failure,
    ) -> Result<(), StoreError> {
        let failure = failure.clone();
        let action = "record the rollback of an operation";
        self.write(action, Durability::Now, move |transaction| {
            operations::begin_rollback(transaction, id, &failure)
        })
        .await
    }

    /// Returns the failure of a running operation whose rollback has begun.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn rollback_of(&self, id: OperationId) -> Result<Option<Failure>, StoreError> {
        self.read("read an operation", move |connection| {
            operations::rollback(connection, id)
        })
        .await
    }

    /// Returns an operation.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn operation(&self, id: OperationId) -> Result<Option<Operation>, StoreError> {
        self.read("read an operation", move |connection| {
            operations::find(connection, id)
        })
        .await
    }

    /// Returns the newest operation on a guest, whether it has ended or not.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn last_operation_on(
        &self,
        guest: &GuestName,
    ) -> Result<Option<Operation>, StoreError> {
        let guest = guest.clone();
        self.read("read the operations", move |connection| {
            operations::last_on(connection, &guest)
        })
        .await
    }

    /// Returns the running operations, the oldest first.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn running_operations(&self) -> Result<Vec<Operation>, StoreError> {
        self.read("read the operations", operations::running).await
    }
}
