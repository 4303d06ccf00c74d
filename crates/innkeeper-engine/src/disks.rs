//! The last measurements of guests' disk space.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use innkeeper_model::GuestName;
use parking_lot::Mutex;

/// Age of a measurement after which it is repeated.
const MAX_AGE: Duration = Duration::from_secs(600);

/// A measurement.
#[derive(Clone, Copy, Debug)]
struct Measured {
    bytes: u64,
    at: Instant,
}

/// The last measurements of all guests.
#[derive(Debug, Default)]
pub(crate) struct Disks(Mutex<BTreeMap<GuestName, Measured>>);

impl Disks {
    /// Returns the bytes of a guest's files by the last measurement.
    pub(crate) fn bytes(&self, guest: &GuestName) -> Option<u64> {
        self.0.lock().get(guest).map(|measured| measured.bytes)
    }

    /// Reports whether the last measurement needs no repetition yet.
    pub(crate) fn is_recent(&self, guest: &GuestName) -> bool {
        let measured = self.0.lock().get(guest).copied();
        measured.is_some_and(|measured| measured.at.elapsed() < MAX_AGE)
    }

    /// Records a measurement; `None` for a guest without files.
    pub(crate) fn record(&self, guest: &GuestName, bytes: Option<u64>) {
        let at = Instant::now();
        let mut all = self.0.lock();
        match bytes {
            Some(bytes) => drop(all.insert(guest.clone(), Measured { bytes, at })),
            None => drop(all.remove(guest)),
        }
    }

    /// Forgets all other guests.
    pub(crate) fn retain(&self, guests: &BTreeSet<GuestName>) {
        self.0.lock().retain(|guest, _| guests.contains(guest));
    }
}
