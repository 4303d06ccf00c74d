//! Reads the slots of an older installation, so that a host that is migrated never gives out an address twice.
//!
//! The older installation's state directories (`/var/lib/claude-agents`, `/var/lib/preview-deploys`) contain one file for
//! each guest, one line `slot host_ip local_ip …`, and `.next_slot` with the next slot to give out. Other files that begin
//! with a dot or end in `.meta`, `.meta.old`, `.sha` or `.type` contain no slots.
//!
//! Where a file cannot be read, its earlier reservation stays: an address that is reserved in vain is better than one that
//! two guests have.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use innkeeper_model::{MAX_SLOT, Slot, SlotRange};

/// The file with the next slot to give out.
const NEXT_SLOT: &str = ".next_slot";

/// Suffixes of files that are no tracking files.
const OTHER_FILES: [&str; 4] = [".meta", ".meta.old", ".sha", ".type"];

/// More than the longest line of a tracking file. A longer file is none.
const LONGEST_FILE: u64 = 4096;

/// A slot and the tracking file that holds it.
pub(crate) type Reservation = (u32, String);

/// The contents of the directories.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// The highest slot that was given out.
    pub(crate) counter: u32,
    /// The slots that are in use.
    pub(crate) reservations: Vec<Reservation>,
    /// Directories and files that could not be read or parsed.
    unread: Vec<PathBuf>,
    /// Sentences for people about every problem.
    pub(crate) notes: Vec<String>,
}

impl Findings {
    /// Reads a directory. One that does not exist contains no slots.
    pub(crate) fn read_directory(&mut self, directory: &Path, range: SlotRange) {
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
            // The older installation still runs, and replaced the file.
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

    /// Keeps the earlier reservations of files that could not be read this time.
    pub(crate) fn keep_unread(&mut self, before: &[Reservation]) {
        let is_unread = |source: &str| {
            let mut unread = self.unread.iter();
            unread.any(|path| Path::new(source).starts_with(path))
        };
        let kept = before
            .iter()
            .filter(|(_, source)| is_unread(source))
            .cloned();
        let kept: Vec<_> = kept.collect();
        self.reservations.extend(kept);
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

/// Reads a small regular file. A pipe would block, and a large file would fill the memory.
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

/// Returns the slot that an address belongs to, if it is in the range.
fn slot_at(range: SlotRange, address: Ipv4Addr) -> Option<u32> {
    let offset = u32::from(address).checked_sub(u32::from(range.subnet().network()))?;
    let slot = offset / 2;
    range.addresses(Slot::new(slot)).map(|_| slot)
}
