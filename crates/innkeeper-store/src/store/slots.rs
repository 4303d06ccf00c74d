//! Slots in use, and the reservations of an older installation.

use std::path::PathBuf;

use innkeeper_model::api::SlotReport;
use rusqlite::Transaction;

use super::Store;
use crate::database::Durability;
use crate::error::{QueryError, StoreError};
use crate::legacy::Findings;
use crate::sql::{legacy_slots, slots};

impl Store {
    /// Returns the slots in use, including those that an older installation holds, in order.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn slots(&self) -> Result<SlotReport, StoreError> {
        let range = self.range;
        self.read("read the slots", move |connection| {
            slots::report(connection, range)
        })
        .await
    }

    /// Reads the state directories of an older installation and reserves its slots, in place of the earlier reservations.
    /// The counter moves forward to the older installation's. Durable. A directory that does not exist is empty.
    ///
    /// Returns sentences for people about everything that could not be read or parsed, and about every slot that a guest
    /// has too. A slot that can be read is reserved even if the rest of its file is malformed.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn reserve_legacy_slots(
        &self,
        directories: &[PathBuf],
    ) -> Result<Vec<String>, StoreError> {
        let (directories, range) = (directories.to_vec(), self.range);
        let action = "reserve the slots of an older installation";
        self.run(action, move |database| {
            let mut findings = Findings::default();
            for directory in &directories {
                findings.read_directory(directory, range);
            }
            database.write(Durability::Now, |transaction| {
                reserve(transaction, &mut findings)
            })?;
            Ok(findings.notes)
        })
        .await
    }
}

fn reserve(transaction: &Transaction<'_>, findings: &mut Findings) -> Result<(), QueryError> {
    let before = legacy_slots::list(transaction)?;
    findings.keep_unread(&before);
    legacy_slots::replace_all(transaction, &findings.reservations)?;
    let is_reserved = |slot| {
        findings
            .reservations
            .iter()
            .any(|(other, _)| *other == slot)
    };
    for (slot, _) in before {
        if !is_reserved(slot) {
            slots::free(transaction, slot)?;
        }
    }
    slots::raise_counter(transaction, findings.counter)?;

    for shared in legacy_slots::shared_with_guests(transaction)? {
        let legacy_slots::SharedSlot {
            slot,
            guest,
            source,
        } = shared;
        tracing::error!(slot, guest, source, "two guests have the same slot");
        findings.notes.push(format!(
            "Slot {slot} belongs to guest '{guest}' and to the older installation's {source}: both have the same addresses, so one of the two has to be destroyed."
        ));
    }
    Ok(())
}
