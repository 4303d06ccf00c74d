//! The audit log.

use std::time::Duration;

use innkeeper_model::access::AuditEntry;

use super::Store;
use crate::database::{Database, Durability};
use crate::error::{QueryError, StoreError};
use crate::sql::audit::{self, AuditFilter, NewAuditEntry};

/// Limits of the audit log. Older entries are deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditLimits {
    /// The maximum number of entries. Some hundred more are kept for a while.
    pub entries: u32,
    /// The maximum age, in running time.
    pub age: Duration,
}

impl Store {
    /// Records a request for a change, before it is carried out, and returns the entry's number. Durable soon: an intent
    /// that is recorded after it takes it to the disk.
    ///
    /// # Errors
    /// Only if the database cannot be written. The change must not be carried out then.
    pub async fn begin_audit(
        &self,
        new: NewAuditEntry,
        limits: AuditLimits,
    ) -> Result<i64, StoreError> {
        self.run("record a request in the audit log", move |database| {
            let now = database.clock.now();
            let seq = database.write(Durability::Soon, |transaction| {
                audit::insert(transaction, &new, now)
            })?;
            database.audit.add(1);
            // The entry is recorded: a failure here is not the request's.
            if let Err(error) = prune_when_due(database, limits) {
                let error = error.explain("delete old audit entries", &database.path);
                tracing::warn!(%error, "old audit entries are kept");
            }
            Ok(seq)
        })
        .await
    }

    /// Records the result of a request, and its object if that was not known before. Durable soon.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn finish_audit(
        &self,
        seq: i64,
        object: Option<String>,
        result: String,
    ) -> Result<(), StoreError> {
        let action = "record a result in the audit log";
        self.write(action, Durability::Soon, move |transaction| {
            audit::finish(transaction, seq, object.as_deref(), &result)
        })
        .await
    }

    /// Returns the selected entries of the audit log, the oldest first.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn audit(&self, filter: AuditFilter) -> Result<Vec<AuditEntry>, StoreError> {
        self.read("read the audit log", move |connection| {
            audit::list(connection, &filter)
        })
        .await
    }
}

/// Deletes old entries, at intervals.
fn prune_when_due(database: &mut Database, limits: AuditLimits) -> Result<(), QueryError> {
    if !database.audit.is_due() {
        return Ok(());
    }
    database.audit.reset();
    let expired = database.clock.expiry().expired_before(limits.age);
    database.write(Durability::Soon, |transaction| {
        audit::prune(transaction, limits.entries, expired.unwrap_or_default())
    })
}
