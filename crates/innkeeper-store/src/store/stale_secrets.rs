//! Secrets of which previews' guests have a former value.

use innkeeper_model::GuestName;
use innkeeper_model::preview::EnvName;

use super::Store;
use crate::database::Durability;
use crate::error::StoreError;
use crate::sql::stale_secrets::{self, StaleSecret};

impl Store {
    /// Records that the guests of previews have a former value of a secret. Previews that are gone are skipped. Durable.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn add_stale_secret(
        &self,
        slugs: Vec<GuestName>,
        name: &EnvName,
    ) -> Result<(), StoreError> {
        let name = name.clone();
        self.insert("record a changed secret", move |transaction| {
            for slug in &slugs {
                stale_secrets::add(transaction, slug, &name)?;
            }
            Ok(())
        })
        .await
    }

    /// Returns all secrets of which guests have a former value, by preview and name.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn stale_secrets(&self) -> Result<Vec<StaleSecret>, StoreError> {
        self.read("read the changed secrets", stale_secrets::list)
            .await
    }

    /// Returns the number of the last change of a preview's secrets, or 0. Read it before the secrets.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn last_stale_secret(&self, slug: &GuestName) -> Result<i64, StoreError> {
        let slug = slug.clone();
        self.read("read the changed secrets", move |connection| {
            stale_secrets::last(connection, &slug)
        })
        .await
    }

    /// Records that a preview's guest has received its secrets, as of a change ([`Self::last_stale_secret`]). Later changes
    /// stay recorded. Durable soon: a row that stays reports a restart that is not needed.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn forget_stale_secrets(
        &self,
        slug: &GuestName,
        last: i64,
    ) -> Result<(), StoreError> {
        let slug = slug.clone();
        let action = "record the delivery of secrets";
        self.write(action, Durability::Soon, move |transaction| {
            stale_secrets::delete(transaction, &slug, last)
        })
        .await
    }
}
