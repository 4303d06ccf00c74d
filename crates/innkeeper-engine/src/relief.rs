//! The actions against a lack of memory: those in progress, those that failed, and those that need no repetition.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use innkeeper_model::{GuestName, MemoryBand};

/// The time after which a guest is chosen again that could not be paused, put to sleep or reclaimed.
const RETRY: Duration = Duration::from_secs(60);

/// The time for which a band must have been left before that is reported. A later return is then reported again.
const CALM: Duration = Duration::from_secs(60);

/// The actions since the start of the daemon.
#[derive(Debug, Default)]
pub(crate) struct Relief {
    /// Guests that are being paused, put to sleep or reclaimed.
    leaving: BTreeSet<GuestName>,
    /// Paused guests whose memory was reclaimed.
    reclaimed: BTreeSet<GuestName>,
    /// Guests for which the last action failed, and the time of that.
    failed: BTreeMap<GuestName, Instant>,
    /// Why guests rest that the daemon paused or put to sleep.
    reasons: BTreeMap<GuestName, String>,
    /// The band in the last event.
    reported: MemoryBand,
    /// The time since which readings are in a lower band than that.
    calm_since: Option<Instant>,
}

impl Relief {
    /// Returns the band to report, if it is another one than that of the last report.
    pub(crate) fn report(&mut self, band: MemoryBand, now: Instant) -> Option<MemoryBand> {
        if band >= self.reported {
            self.calm_since = None;
        } else {
            let since = *self.calm_since.get_or_insert(now);
            if now.duration_since(since) < CALM {
                return None;
            }
        }
        let is_new = band != self.reported;
        self.reported = band;
        is_new.then_some(band)
    }

    /// Records that an action on a guest began.
    pub(crate) fn begin(&mut self, guest: &GuestName) {
        self.leaving.insert(guest.clone());
    }

    /// Records that it ended.
    pub(crate) fn end(&mut self, guest: &GuestName, succeeded: bool, now: Instant) {
        self.leaving.remove(guest);
        if !succeeded {
            self.failed.insert(guest.clone(), now);
        }
    }

    /// Records why a guest was paused or put to sleep, as a clause.
    pub(crate) fn rested(&mut self, guest: &GuestName, reason: String) {
        self.reasons.insert(guest.clone(), reason);
    }

    /// Forgets why a guest rests: another level is requested.
    pub(crate) fn forget_reason(&mut self, guest: &GuestName) {
        self.reasons.remove(guest);
    }

    /// Returns why a guest that rests was paused or put to sleep.
    pub(crate) fn reason(&self, guest: &GuestName) -> Option<String> {
        self.reasons.get(guest).cloned()
    }

    /// Forgets the reasons of guests that are awake.
    pub(crate) fn retain_reasons(&mut self, rests: impl Fn(&GuestName) -> bool) {
        self.reasons.retain(|guest, _| rests(guest));
    }

    /// Records that the memory of a paused guest was reclaimed.
    pub(crate) fn reclaimed(&mut self, guest: &GuestName) {
        self.reclaimed.insert(guest.clone());
    }

    /// Forgets which memory was reclaimed, so that it is reclaimed again in the next lack of memory.
    pub(crate) fn forget_reclaimed(&mut self) {
        self.reclaimed.clear();
    }

    /// Forgets old failures, and guests that are no longer `paused`.
    pub(crate) fn refresh(&mut self, paused: &BTreeSet<GuestName>, now: Instant) {
        self.reclaimed.retain(|guest| paused.contains(guest));
        self.failed.retain(|_, at| now.duration_since(*at) < RETRY);
    }

    /// Reports whether an action on a guest is in progress.
    pub(crate) fn is_leaving(&self, guest: &GuestName) -> bool {
        self.leaving.contains(guest)
    }

    /// Reports whether a guest's memory was reclaimed since it was paused.
    pub(crate) fn is_reclaimed(&self, guest: &GuestName) -> bool {
        self.reclaimed.contains(guest)
    }

    /// Reports whether an action on a guest failed a moment ago.
    pub(crate) fn has_failed(&self, guest: &GuestName) -> bool {
        self.failed.contains_key(guest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_are_reported_at_once_and_left_after_a_while() {
        let (mut relief, start) = (Relief::default(), Instant::now());
        let mut report = |band, after| relief.report(band, start + Duration::from_secs(after));
        assert_eq!(report(MemoryBand::Normal, 0), None);
        assert_eq!(report(MemoryBand::Sleep, 1), Some(MemoryBand::Sleep));
        assert_eq!(report(MemoryBand::Sleep, 2), None);
        assert_eq!(report(MemoryBand::Refuse, 3), Some(MemoryBand::Refuse));
        // It is left for a moment.
        assert_eq!(report(MemoryBand::Pause, 4), None);
        assert_eq!(report(MemoryBand::Refuse, 5), None);
        assert_eq!(report(MemoryBand::Normal, 6), None);
        assert_eq!(report(MemoryBand::Pause, 65), None);
        assert_eq!(report(MemoryBand::Normal, 66), Some(MemoryBand::Normal));
    }

    #[test]
    fn failed_guest_is_chosen_again_later() {
        let guest = GuestName::parse("web").expect("valid");
        let (mut relief, start) = (Relief::default(), Instant::now());
        relief.begin(&guest);
        assert!(relief.is_leaving(&guest));
        relief.end(&guest, false, start);
        relief.refresh(&BTreeSet::new(), start + RETRY - Duration::from_secs(1));
        assert!(relief.has_failed(&guest) && !relief.is_leaving(&guest));
        relief.refresh(&BTreeSet::new(), start + RETRY);
        assert!(!relief.has_failed(&guest));
    }
}
