//! Slots of an older installation, so that a host that is migrated never hands out an address twice.
//!
//! Its state directories (`/var/lib/claude-agents`, `/var/lib/preview-deploys`) hold a file for each
//! guest, one line `slot host_ip local_ip …`, and `.next_slot` with the next slot to give out. Other
//! files that begin with a dot or end in `.meta`, `.meta.old`, `.sha` or `.type` say nothing about slots.
//!
//! Where something cannot be read, the reservation that is known from before stays: it is better to keep
//! an address back for nothing than to give it to two guests.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use innkeeper_model::{MAX_SLOT, Slot, SlotRange};
use rusqlite::Transaction;

use crate::connection::Store;
use crate::database::Durability;
use crate::error::{QueryError, StoreError};
use crate::slots;

/// The file with the next slot to give out.
const NEXT_SLOT: &str = ".next_slot";

/// Ends of the names of files that are no tracking files.
const OTHER_FILES: [&str; 4] = [".meta", ".meta.old", ".sha", ".type"];

/// More than the longest line of a tracking file. What is longer is none.
const LONGEST_FILE: u64 = 4096;

impl Store {
    /// Reads the state directories of an older installation as they are now, and reserves its slots in
    /// place of those that were reserved before; the counter moves forward to where the older one is.
    /// Durable. A directory that does not exist holds nothing.
    ///
    /// Returns whole sentences about all that could not be read or makes no sense, and about every slot
    /// that a guest of ours has too. A slot that can be read is reserved even if the rest of its file
    /// makes no sense.
    ///
    /// # Errors
    /// Only what the disk or SQLite says of our own database.
    pub async fn reserve_legacy_slots(
        &self,
        directories: &[PathBuf],
    ) -> Result<Vec<String>, StoreError> {
        let directories = directories.to_vec();
        self.run(
            "reserve the slots of an older installation",
            move |database| {
                let mut findings = Findings::default();
                for directory in &directories {
                    findings.read_directory(directory, database.range);
                }
                database.write(Durability::Now, |transaction| {
                    record(transaction, &mut findings)
                })?;
                Ok(findings.notes)
            },
        )
        .await
    }
}

/// A slot and the tracking file that holds it.
type Reservation = (u32, String);

/// What the directories say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Findings {
    /// The highest slot that was given out.
    counter: u32,
    reservations: Vec<Reservation>,
    /// Directories and files of which we do not know what they say.
    unread: Vec<PathBuf>,
    notes: Vec<String>,
}

impl Findings {
    fn read_directory(&mut self, directory: &Path, range: SlotRange) {
        let mut paths = match list(directory) {
            Ok(paths) => paths,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.unreadable(directory, &error),
        };
        paths.sort();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name == NEXT_SLOT {
                self.read_next_slot(&path);
            } else if !name.starts_with('.') && !OTHER_FILES.iter().any(|end| name.ends_with(end)) {
                self.read_tracking_file(&path, range);
            }
        }
    }

    fn read_next_slot(&mut self, path: &Path) {
        let text = match read_small_file(path) {
            Ok(text) => text,
            // The older installation is still at work, and replaced the file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.unreadable(path, &error),
        };
        match text.trim().parse() {
            Ok(next @ 1..) if next - 1 <= MAX_SLOT => self.counter = self.counter.max(next - 1),
            _ => self.notes.push(format!(
                "{} should hold the next slot to give out, a number from 1 to {}, and holds {:?}; slots that the older installation gave out and took back may be given out again early.",
                path.display(),
                MAX_SLOT + 1,
                text.trim(),
            )),
        }
    }

    fn read_tracking_file(&mut self, path: &Path, range: SlotRange) {
        let text = match read_small_file(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.unreadable(path, &error),
        };
        let mut fields = text.split_whitespace();
        let Some(slot) = fields.next().and_then(slot_number) else {
            self.unread.push(path.to_owned());
            self.notes.push(format!(
                "{} does not begin with a slot, a number from 1 to {MAX_SLOT}; its guest's addresses are not reserved.",
                path.display(),
            ));
            return;
        };
        self.reserve(slot, path);
        let addresses: Vec<Ipv4Addr> = fields.take(2).map_while(|f| f.parse().ok()).collect();
        if addresses.len() < 2 || text.trim().lines().count() > 1 {
            self.notes.push(format!(
                "{} is not one line with a slot and two addresses; slot {slot} is reserved for it all the same.",
                path.display(),
            ));
        }
        for address in addresses {
            match slot_at(range, address) {
                Some(other) if other != slot => {
                    self.reserve(other, path);
                    self.notes.push(format!(
                        "{} gives slot {slot} the address {address}, which belongs to slot {other} of {}; both slots are reserved for it.",
                        path.display(),
                        range.subnet(),
                    ));
                }
                _ => {}
            }
        }
    }

    fn reserve(&mut self, slot: u32, path: &Path) {
        let reservation = (slot, path.to_string_lossy().into_owned());
        if !self.reservations.contains(&reservation) {
            self.reservations.push(reservation);
        }
    }

    fn unreadable(&mut self, path: &Path, error: &io::Error) {
        self.unread.push(path.to_owned());
        self.notes.push(format!(
            "{} cannot be read ({error}); slots that it holds are reserved only if they were before.",
            path.display(),
        ));
    }
}

fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect()
}

/// Reads a file that is one short line, and nothing that would make us wait or swell.
fn read_small_file(path: &Path) -> io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = String::new();
    File::open(path)?
        .take(LONGEST_FILE + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST_FILE {
        return Err(io::Error::other("it is too long"));
    }
    Ok(text)
}

fn slot_number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits)?;
    (1..=MAX_SLOT).contains(&number).then_some(number)
}

/// The slot that an address belongs to, if we could give it out.
fn slot_at(range: SlotRange, address: Ipv4Addr) -> Option<u32> {
    let offset = u32::from(address).checked_sub(u32::from(range.subnet().network()))?;
    let slot = offset / 2;
    range.addresses(Slot::new(slot)).map(|_| slot)
}

fn record(transaction: &Transaction<'_>, findings: &mut Findings) -> Result<(), QueryError> {
    let before = reservations(transaction)?;
    let mut now = findings.reservations.clone();
    // A file that we could not read holds what it held.
    now.extend(
        before
            .iter()
            .filter(|(_, source)| {
                findings
                    .unread
                    .iter()
                    .any(|path| Path::new(source).starts_with(path))
            })
            .cloned(),
    );

    transaction.execute("DELETE FROM legacy_slots", ())?;
    for (slot, source) in &now {
        transaction
            .prepare_cached("INSERT OR IGNORE INTO legacy_slots (slot, source) VALUES (?1, ?2)")?
            .execute((slot, source))?;
    }
    for (slot, _) in before {
        if !now.iter().any(|(other, _)| *other == slot) {
            slots::free(transaction, slot)?;
        }
    }
    slots::raise_counter(transaction, findings.counter)?;

    let shared = transaction
        .prepare(
            "SELECT slot, name, legacy_slots.source FROM guests JOIN legacy_slots USING (slot)
             ORDER BY slot",
        )?
        .query_map((), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<Vec<(u32, String, String)>, _>>()?;
    for (slot, name, source) in shared {
        tracing::error!(slot, guest = name, source, "two guests have the same slot");
        findings.notes.push(format!(
            "Slot {slot} belongs to guest '{name}' and to the older installation's {source}: both have the same addresses, so one of the two has to be destroyed."
        ));
    }
    Ok(())
}

fn reservations(transaction: &Transaction<'_>) -> Result<Vec<Reservation>, QueryError> {
    let rows = transaction
        .prepare("SELECT slot, source FROM legacy_slots ORDER BY slot, source")?
        .query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    Ok(rows)
}
