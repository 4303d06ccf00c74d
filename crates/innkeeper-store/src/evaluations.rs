//! What configurations of previews were evaluated and built to, so that the next commit with the same
//! configuration evaluates nothing.

use std::time::Duration;

use innkeeper_model::StorePath;
use innkeeper_model::preview::Meta;
use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row};

use crate::codec::{Json, Time, Word};
use crate::connection::Store;
use crate::database::Durability;
use crate::error::StoreError;

/// What a configuration was evaluated and built to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// The hash of all that the result depends on.
    pub key: String,
    /// The closure.
    pub closure: StorePath,
    /// The meta.
    pub meta: Meta,
    /// When it was built.
    pub built_at: Timestamp,
    /// When it was last asked for.
    pub used_at: Timestamp,
}

impl Store {
    /// What was kept under a key, if anything was. This counts as a use of it.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn evaluation(&self, key: &str) -> Result<Option<Evaluation>, StoreError> {
        let key = key.to_owned();
        self.run("read an evaluation", move |database| {
            database.write(Durability::Soon, |transaction| {
                let evaluation = transaction
                    .prepare_cached(
                        "UPDATE evaluations
                         SET used_at = ?2, used_running = (SELECT micros FROM running_time)
                         WHERE key = ?1 RETURNING *",
                    )?
                    .query_row((key, Time::now()), read)
                    .optional()?;
                Ok(evaluation)
            })
        })
        .await
    }

    /// Keeps what a configuration was evaluated and built to, in place of what was kept under the key.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn cache_evaluation(
        &self,
        key: &str,
        closure: &StorePath,
        meta: &Meta,
    ) -> Result<(), StoreError> {
        let row = (
            key.to_owned(),
            Word(closure.clone()),
            Json(meta.clone()),
            Time::now(),
        );
        self.run("record an evaluation", move |database| {
            database.write(Durability::Soon, |transaction| {
                transaction
                    .prepare_cached(
                        "INSERT OR REPLACE INTO evaluations
                         (key, closure, meta, built_at, used_at, used_running)
                         VALUES (?1, ?2, ?3, ?4, ?4, (SELECT micros FROM running_time))",
                    )?
                    .execute(row)?;
                Ok(())
            })
        })
        .await
    }

    /// Forgets what was kept under a key, as when its closure has gone. If nothing was, that is success.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn forget_evaluation(&self, key: &str) -> Result<(), StoreError> {
        let key = key.to_owned();
        self.run("forget an evaluation", move |database| {
            database.write(Durability::Soon, |transaction| {
                transaction
                    .prepare_cached("DELETE FROM evaluations WHERE key = ?1")?
                    .execute([key])?;
                Ok(())
            })
        })
        .await
    }

    /// Forgets evaluations that no preview wants or serves and that were not used for `lifetime`, in running time, and
    /// returns them: their closures may lose their GC roots.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn evict_unused_evaluations(
        &self,
        lifetime: Duration,
    ) -> Result<Vec<Evaluation>, StoreError> {
        self.run("forget unused evaluations", move |database| {
            let Some(expired_before) = database.clock.expiry().expired_before(lifetime) else {
                return Ok(Vec::new());
            };
            database.write(Durability::Soon, |transaction| {
                let forgotten = transaction
                    .prepare_cached(
                        "DELETE FROM evaluations
                         WHERE used_running < ?1 AND NOT EXISTS (
                             SELECT 1 FROM previews
                             WHERE evaluation = evaluations.key OR live_closure = evaluations.closure)
                         RETURNING *",
                    )?
                    .query_map([expired_before], read)?
                    .collect::<Result<_, _>>()?;
                Ok(forgotten)
            })
        })
        .await
    }

    /// All that is kept, by key.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn evaluations(&self) -> Result<Vec<Evaluation>, StoreError> {
        self.run("read the evaluations", |database| {
            let evaluations = database
                .connection
                .prepare_cached("SELECT * FROM evaluations ORDER BY key")?
                .query_map((), read)?
                .collect::<Result<_, _>>()?;
            Ok(evaluations)
        })
        .await
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Evaluation> {
    Ok(Evaluation {
        key: row.get("key")?,
        closure: row.get::<_, Word<_>>("closure")?.0,
        meta: row.get::<_, Json<_>>("meta")?.0,
        built_at: row.get::<_, Time>("built_at")?.0,
        used_at: row.get::<_, Time>("used_at")?.0,
    })
}
