//! Pings of webhooks, for diagnosis.

use innkeeper_model::preview::PingEvent;
use jiff::Timestamp;

use super::Store;
use crate::database::Durability;
use crate::error::StoreError;
use crate::sql::pings::{self, Ping};

impl Store {
    /// Records the last ping of a webhook. Durable soon.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn record_ping(
        &self,
        ping: PingEvent,
        received_at: Timestamp,
    ) -> Result<(), StoreError> {
        self.write("record a ping", Durability::Soon, move |transaction| {
            pings::replace(transaction, &ping, received_at)
        })
        .await
    }

    /// Returns the last ping of each webhook, ordered by owner.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn pings(&self) -> Result<Vec<Ping>, StoreError> {
        self.read("read the pings", pings::list).await
    }
}
