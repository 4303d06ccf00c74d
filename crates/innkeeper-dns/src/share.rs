//! Places that all guests share, so that guests with many of them leave some to others.
//!
//! While half of the places are free, each guest may have its limit. Otherwise it may have its share.

use std::net::IpAddr;
use std::sync::Arc;

use innkeeper_service::{PeerQuota, PeerSlot};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// When places are short, a guest gets no further one if it holds as many as one of so many free ones. So guests that take places at the same time
/// leave some (the dynamic threshold of shared buffers in switches).
const FREE_PART: usize = 8;

/// When places are short, the number of guests without a place that are counted as if they had some. So guests that always have as many places as they
/// get leave some, as soon as their former ones are free.
const NEWCOMERS: usize = 15;

/// A number of places, with a limit for each guest.
#[derive(Debug)]
pub(crate) struct Share {
    places: usize,
    limit: usize,
    guests: PeerQuota,
    all: Arc<Semaphore>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _of_guest: PeerSlot,
    _of_all: OwnedSemaphorePermit,
}

impl Share {
    /// Shares places among guests that hold `limit` of them at most.
    pub(crate) fn new(places: usize, limit: usize) -> Self {
        Self {
            places,
            limit,
            guests: PeerQuota::new(limit),
            all: Arc::new(Semaphore::new(places)),
        }
    }

    /// Returns a place for a guest. `None` if it has its limit, or its share. A guest without a place gets one while any is free.
    pub(crate) fn acquire(&self, guest: IpAddr) -> Option<Place> {
        let free = self.all.available_permits();
        let limit = if free >= self.places / 2 {
            self.limit
        } else {
            let of_all = self.places / (self.guests.peers() + NEWCOMERS);
            self.limit.min(free / FREE_PART).min(of_all)
        };
        Some(Place {
            _of_guest: self.guests.acquire_within(guest, limit)?,
            _of_all: Arc::clone(&self.all).try_acquire_owned().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(number: u32) -> IpAddr {
        IpAddr::from((0x0a64_0000 + number).to_be_bytes())
    }

    fn taken_by(share: &Share, number: u32) -> Vec<Place> {
        std::iter::from_fn(|| share.acquire(guest(number))).collect()
    }

    #[test]
    fn guests_that_take_all_they_get_leave_places_to_others() {
        let share = Share::new(4096, 256);
        let mut held: Vec<_> = (0..500).map(|number| taken_by(&share, number)).collect();
        assert_eq!(held[0].len(), 256);
        // Queries end, and are followed by as many as possible.
        for _ in 0..10 {
            for (number, places) in (0..).zip(&mut held) {
                places.truncate(places.len() / 2);
                places.extend(taken_by(&share, number));
            }
        }
        let others: Vec<_> = (1000..1050)
            .map(|other| share.acquire(guest(other)))
            .collect();
        assert!(others.iter().all(Option::is_some));
        drop((held, others));
        assert_eq!(taken_by(&share, 1).len(), 256);
    }

    #[test]
    fn many_guests_with_few_places_take_none_from_others() {
        let share = Share::new(4096, 256);
        let few: Vec<_> = (0..1000)
            .map(|number| share.acquire(guest(number)))
            .collect();
        assert!(few.iter().all(Option::is_some));
        assert_eq!(taken_by(&share, 2000).len(), 256);
        drop(few);
        // Half of the places are the most that a limit can give.
        let share = Share::new(4096, 4096);
        assert_eq!(taken_by(&share, 1).len(), 2049);
    }

    #[test]
    fn last_place_is_for_a_guest_without_one() {
        let share = Share::new(4, 256);
        let mut first = taken_by(&share, 1);
        assert_eq!(first.len(), 3);
        let _second = share.acquire(guest(2)).expect("the last place");
        assert!(share.acquire(guest(3)).is_none());
        first.pop();
        assert!(share.acquire(guest(1)).is_none());
        assert!(share.acquire(guest(3)).is_some());
    }
}
