//! Cache of evaluated configurations, so that the next commit with the same configuration evaluates nothing.

use std::time::Duration;

use innkeeper_model::StorePath;
use innkeeper_model::preview::Meta;

use super::Store;
use crate::database::Durability;
use crate::error::StoreError;
use crate::sql::evaluations::{self, Evaluation};

impl Store {
    /// Returns the cached evaluation of a key, and records that it was used.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn evaluation(&self, key: &str) -> Result<Option<Evaluation>, StoreError> {
        let key = key.to_owned();
        self.write("read an evaluation", Durability::Soon, move |transaction| {
            evaluations::touch(transaction, &key)
        })
        .await
    }

    /// Caches the result of an evaluation, in place of an earlier one of the same key.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn cache_evaluation(
        &self,
        key: &str,
        closure: &StorePath,
        meta: &Meta,
    ) -> Result<(), StoreError> {
        let (key, closure, meta) = (key.to_owned(), closure.clone(), meta.clone());
        self.write(
            "cache an evaluation",
            Durability::Soon,
            move |transaction| evaluations::replace(transaction, &key, &closure, &meta),
        )
        .await
    }

    /// Evicts the evaluations that no preview desires or serves and that were not used for `lifetime`, in running time.
    /// Returns them: their closures may lose their GC roots.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn evict_unused_evaluations(
        &self,
        lifetime: Duration,
    ) -> Result<Vec<Evaluation>, StoreError> {
        self.run("evict unused evaluations", move |database| {
            let Some(expired_before) = database.clock.expiry().expired_before(lifetime) else {
                return Ok(Vec::new());
            };
            database.write(Durability::Soon, |transaction| {
                evaluations::delete_unused(transaction, expired_before)
            })
        })
        .await
    }

    /// Returns all cached evaluations, by key.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn evaluations(&self) -> Result<Vec<Evaluation>, StoreError> {
        self.read("read the evaluations", evaluations::list).await
    }
}
