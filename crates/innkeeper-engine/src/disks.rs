//! The last measurements of guests' disk space.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use innkeeper_model::{Guest, GuestName};
use jiff::Timestamp;
use parking_lot::Mutex;

/// Age of a measurement after which it is repeated.
const MAX_AGE: Duration = Duration::from_secs(600);

/// A measurement.
#[derive(Clone, Copy, Debug)]
struct Measured {
    /// The creation of the guest: a name can be used again.
    created_at: Timestamp,
    bytes: u64,
    at: Instant,
}

/// The last measurements of all guests.
#[derive(Debug, Default)]
pub(crate) struct Disks(Mutex<BTreeMap<GuestName, Measured>>);

impl Disks {
    /// Returns the bytes of a guest's files by the last measurement.
    pub(crate) fn bytes(&self, guest: &Guest) -> Option<u64> {
        self.of(guest).map(|measured| measured.bytes)
    }

    /// Reports whether the last measurement needs no repetition yet.
    pub(crate) fn is_recent(&self, guest: &Guest) -> bool {
        let measured = self.of(guest);
        measured.is_some_and(|measured| measured.at.elapsed() < MAX_AGE)
    }

    fn of(&self, guest: &Guest) -> Option<Measured> {
        let measured = self.0.lock().get(&guest.name).copied();
        measured.filter(|measured| measured.created_at == guest.created_at)
    }

    /// Records a measurement; `None` for a guest without files.
    pub(crate) fn record(&self, guest: &Guest, bytes: Option<u64>) {
        let (name, created_at, at) = (guest.name.clone(), guest.created_at, Instant::now());
        let measured = |bytes| Measured {
            created_at,
            bytes,
            at,
        };
        let mut all = self.0.lock();
        match bytes.map(measured) {
            Some(measured) => drop(all.insert(name, measured)),
            None => drop(all.remove(&name)),
        }
    }

    /// Forgets all other guests.
    pub(crate) fn retain(&self, guests: &BTreeSet<GuestName>) {
        self.0.lock().retain(|guest, _| guests.contains(guest));
    }
}
