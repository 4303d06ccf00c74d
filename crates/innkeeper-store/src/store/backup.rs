//! Backups: a copy of the database, and the restore of records from one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use innkeeper_model::{DesiredState, Failure, GuestName, Slot};

use super::Store;
use super::guests::refuse_seat;
use crate::backup::create_file;
use crate::database::{Database, Durability};
use crate::error::{QueryError, StoreError};
use crate::sql::{backup, guests, held, previews, slots};

/// The records to restore from a copy of a database. [`BackupRecords`](crate::BackupRecords) lists those that it has.
#[derive(Clone, Debug, Default)]
pub struct Restore {
    /// The copy, which [`BackupRecords::read`](crate::BackupRecords::read) has migrated.
    pub copy: PathBuf,
    /// Restores everything else too: the history of deliveries, checks and slots. The host must have no guest and no
    /// preview.
    pub everything: bool,
    /// The guests.
    pub guests: Vec<GuestName>,
    /// The previews.
    pub previews: Vec<GuestName>,
    /// The guests whose closures are to be determined again.
    pub without_closure: BTreeSet<GuestName>,
    /// The guests that are to be stopped, with the cause.
    pub faults: BTreeMap<GuestName, Failure>,
}

/// A guest whose slot was not free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedGuest {
    /// The guest.
    pub name: GuestName,
    /// Its slot in the backup.
    pub was: Slot,
    /// Its slot now.
    pub is: Slot,
}

/// Names that nothing but a restore gives to a guest or preview. Dropping it, or a crash, releases them.
#[derive(Debug)]
pub struct NameHold {
    store: Store,
    names: Vec<GuestName>,
}

impl Drop for NameHold {
    fn drop(&mut self) {
        let names = std::mem::take(&mut self.names);
        let work = move |database: &mut Database| {
            let released = |name: &GuestName| held::release(&database.connection, name);
            names.iter().try_for_each(released)
        };
        // An error can only be one of SQLite's memory.
        self.store.send("release names", work, drop);
    }
}

impl Store {
    /// Holds names for a restore whose objects precede its records. Until the hold is dropped, guests and previews of these
    /// names are refused with [`StoreError::NameHeld`], and deliveries for such previews wait.
    ///
    /// # Errors
    /// [`StoreError::GuestExists`] if a guest that waits at its door has one of the names.
    pub async fn hold_names(&self, names: Vec<GuestName>) -> Result<NameHold, StoreError> {
        let held = names.clone();
        self.run("hold names", move |database| {
            for name in &held {
                refuse_seat(&database.connection, name)?;
            }
            let hold = |name: &GuestName| held::hold(&database.connection, name);
            held.iter().try_for_each(hold)
        })
        .await?;
        let store = self.clone();
        Ok(NameHold { store, names })
    }

    /// Returns the names that a restore holds.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub async fn held_names(&self) -> Result<BTreeSet<GuestName>, StoreError> {
        self.read("read the held names", held::list).await
    }

    /// Writes a consistent copy of the database to a file that only the daemon's user can read. Replaces an older one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        let path = path.to_owned();
        self.run("copy the database", move |database| {
            create_file(&path)?;
            let text = path.to_string_lossy();
            database.connection.execute("VACUUM INTO ?1", [&text])?;
            Ok(())
        })
        .await
    }

    /// Restores records, all or nothing. Durable. A guest keeps its slot if that is free here.
    ///
    /// # Errors
    /// [`StoreError::GuestExists`], [`StoreError::NameOfPreview`] and [`StoreError::BranchHasPreview`] for a record that
    /// exists; [`StoreError::HostInUse`] when everything is to be restored and the host has a record;
    /// [`StoreError::NoSlotLeft`].
    pub async fn restore_records(&self, restore: Restore) -> Result<Vec<MovedGuest>, StoreError> {
        let range = self.range;
        self.run("restore records", move |database| {
            database.require_space()?;
            let copy = restore.copy.to_string_lossy();
            // Not possible inside of a transaction.
            let connection = &database.connection;
            connection.execute("ATTACH DATABASE ?1 AS backup", [&copy])?;
            let restored = run(database, range, &restore);
            database.connection.execute("DETACH DATABASE backup", ())?;
            restored
        })
        .await
    }
}

fn run(
    database: &mut Database,
    range: innkeeper_model::SlotRange,
    restore: &Restore,
) -> Result<Vec<MovedGuest>, QueryError> {
    let there = backup::running_time(&database.connection)?;
    let now = database.clock.now();
    // Ages continue where they were.
    let ahead = match restore.everything {
        true => there.since(now),
        false => Duration::ZERO,
    };
    let here = now.after(ahead);
    let delta = micros(here.since(there)) - micros(there.since(here));
    let moved = database.write(Durability::Now, |transaction| {
        if restore.everything {
            if let Some(record) = backup::any_record(transaction)? {
                return Err(StoreError::HostInUse { record }.into());
            }
            backup::keep_ages(transaction, micros(ahead))?;
            backup::replace_deliveries(transaction, delta)?;
        }
        crate::clock::record(transaction, here)?;
        let mut moved = Vec::new();
        for name in &restore.guests {
            require_free(transaction, name)?;
        }
        for slug in &restore.previews {
            require_free(transaction, slug)?;
            if let Some((slug, owner)) = backup::rival(transaction, slug)? {
                return Err(StoreError::BranchHasPreview { owner, slug }.into());
            }
        }
        // Guests without a free slot come last: they must not take one that belongs to another guest of the backup.
        let mut homeless = Vec::new();
        for name in &restore.guests {
            let (slot, count) = backup::slots(transaction, name)?;
            if backup::take_slots(transaction, range, slot, count)? {
                insert(transaction, restore, name, slot)?;
            } else {
                homeless.push((name, slot, count));
            }
        }
        for (name, was, count) in homeless {
            let is = slots::take(transaction, range, count)?;
            insert(transaction, restore, name, is)?;
            moved.push(MovedGuest {
                name: name.clone(),
                was,
                is,
            });
        }
        for slug in &restore.previews {
            backup::insert_preview(transaction, slug, delta, restore.everything)?;
        }
        backup::add_facts(transaction, delta)?;
        if restore.everything {
            backup::add_history(transaction)?;
        }
        Ok(moved)
    })?;
    database.clock.advance(ahead);
    Ok(moved)
}

fn insert(
    transaction: &rusqlite::Transaction<'_>,
    restore: &Restore,
    name: &GuestName,
    slot: Slot,
) -> Result<(), QueryError> {
    let without_closure = restore.without_closure.contains(name);
    let fault = restore.faults.get(name);
    backup::insert_guest(transaction, name, slot, without_closure, fault)
}

/// Fails if a guest or preview of the host has the name.
fn require_free(
    transaction: &rusqlite::Transaction<'_>,
    name: &GuestName,
) -> Result<(), QueryError> {
    if let Some(guest) = guests::find(transaction, name)? {
        let (name, desired) = (guest.name, guest.desired);
        return Err(StoreError::GuestExists { name, desired }.into());
    }
    if previews::find(transaction, name)?.is_some() {
        let (name, desired) = (name.clone(), DesiredState::Running);
        return Err(StoreError::GuestExists { name, desired }.into());
    }
    Ok(())
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
