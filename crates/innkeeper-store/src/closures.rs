//! What was built before, so that the next guest of the same kind need not wait for Nix.

use innkeeper_model::api::CachedClosure;
use innkeeper_model::{Installable, StorePath};
use rusqlite::{OptionalExtension, Row};

use crate::codec::{Time, Word};
use crate::connection::Store;
use crate::database::Durability;
use crate::error::StoreError;

impl Store {
    /// What a flake output was built to, if it was.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn cached_closure(
        &self,
        installable: &Installable,
    ) -> Result<Option<CachedClosure>, StoreError> {
        let installable = installable.clone();
        self.run("read a built closure", move |database| {
            let cached = database
                .connection
                .prepare_cached("SELECT * FROM closures WHERE installable = ?1")?
                .query_row([Word(installable)], read)
                .optional()?;
            Ok(cached)
        })
        .await
    }

    /// Records what a flake output was built to, in place of what it was built to before.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn cache_closure(
        &self,
        installable: &Installable,
        closure: &StorePath,
        fingerprint: &str,
    ) -> Result<(), StoreError> {
        let row = (
            Word(installable.clone()),
            Word(closure.clone()),
            fingerprint.to_owned(),
            Time::now(),
        );
        self.run("record a built closure", move |database| {
            database.write(Durability::Soon, |transaction| {
                transaction
                    .prepare_cached(
                        "INSERT OR REPLACE INTO closures
                         (installable, closure, fingerprint, built_at) VALUES (?1, ?2, ?3, ?4)",
                    )?
                    .execute(row)?;
                Ok(())
            })
        })
        .await
    }

    /// Forgets what a flake output was built to. If nothing is known of it, that is success.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn forget_closure(&self, installable: &Installable) -> Result<(), StoreError> {
        let installable = installable.clone();
        self.run("forget a built closure", move |database| {
            database.write(Durability::Soon, |transaction| {
                transaction
                    .prepare_cached("DELETE FROM closures WHERE installable = ?1")?
                    .execute([Word(installable)])?;
                Ok(())
            })
        })
        .await
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<CachedClosure> {
    Ok(CachedClosure {
        installable: row.get("installable")?,
        closure: row.get::<_, Word<_>>("closure")?.0,
        fingerprint: row.get("fingerprint")?,
        built_at: row.get::<_, Time>("built_at")?.0,
    })
}
