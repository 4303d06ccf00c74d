//! The use of guests' idle time, and keepalives.

use std::time::Duration;

use innkeeper_model::{GuestName, IdlePolicy};

use super::Store;
use crate::codec::Text;
use crate::database::Durability;
use crate::error::StoreError;
use crate::sql::guests;

impl Store {
    /// Records the use of a guest's idle time; `None` for that of its kind. Durable.
    ///
    /// # Errors
    /// [`StoreError::GuestNotFound`].
    pub async fn set_idle_policy(
        &self,
        name: &GuestName,
        policy: Option<IdlePolicy>,
    ) -> Result<(), StoreError> {
        let (name, policy) = (name.clone(), policy.map(Text));
        let action = "record the idle policy of a guest";
        self.write(action, Durability::Now, move |transaction| {
            guests::set(transaction, &name, "idle_policy", &policy)
        })
        .await
    }

    /// Records that a guest is kept awake for a time from now; `None` ends that. The time counts in running time. Durable.
    ///
    /// # Errors
    /// [`StoreError::GuestNotFound`].
    pub async fn set_keepalive(
        &self,
        name: &GuestName,
        time: Option<Duration>,
    ) -> Result<(), StoreError> {
        let name = name.clone();
        self.run("record a keepalive", move |database| {
            let until = time.map(|time| database.clock.now().after(time));
            database.write(Durability::Now, |transaction| {
                guests::set(transaction, &name, "awake_until_running", &until)
            })
        })
        .await
    }

    /// Returns the guests that are kept awake, each with the time that is left.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn keepalives(&self) -> Result<Vec<(GuestName, Duration)>, StoreError> {
        self.run("read the keepalives", |database| {
            let now = database.clock.now();
            let kept = guests::keepalives(&database.connection)?;
            let left = kept
                .into_iter()
                .map(|(name, until)| (name, until.since(now)));
            Ok(left.filter(|(_, left)| !left.is_zero()).collect())
        })
        .await
    }
}
