//! Running time and expiry; see [`crate::clock`].

use std::time::Duration;

use super::Store;
use crate::clock::{self, ExpiryClock, RunningTime};
use crate::database::Durability;
use crate::error::StoreError;

impl Store {
    /// Returns the running time. Objects that expire by age record it when they begin, and compare it with
    /// [`Self::expiry_clock`].
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub async fn running_time(&self) -> Result<RunningTime, StoreError> {
        self.run("read the running time", |database| Ok(database.clock.now()))
            .await
    }

    /// Returns the clock that decides what has expired.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub async fn expiry_clock(&self) -> Result<ExpiryClock, StoreError> {
        self.run("read the running time", |database| {
            Ok(database.clock.expiry())
        })
        .await
    }

    /// Sets the grace period: for so long after the daemon's start nothing expires, so that people and GitHub can reach
    /// the host before it removes anything.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub async fn set_expiry_grace(&self, grace: Duration) -> Result<(), StoreError> {
        self.run("set the grace period", move |database| {
            database.clock.set_grace(grace);
            Ok(())
        })
        .await
    }

    /// Moves the running time forward, as if the daemon had run for this long. For tests.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn advance_running_time(&self, by: Duration) -> Result<(), StoreError> {
        self.run("move the running time", move |database| {
            database.clock.advance(by);
            let now = database.clock.now();
            database.write(Durability::Soon, |transaction| {
                clock::record(transaction, now)
            })
        })
        .await
    }
}
