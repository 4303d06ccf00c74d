//! The rate of each guest's queries over TCP. Each may cost a connection to a name server, and the host has one port for
//! each connection of the last minute.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The interval of queries that a guest may sustain.
const INTERVAL: Duration = Duration::from_millis(50);

/// The number of queries that a guest may send at once.
const BURST: u32 = 64;

/// The number of entries at which those without effect are removed.
const PRUNE_AT: usize = 256;

/// The rates of all guests: for each, the time at which its burst is whole again.
#[derive(Debug, Default)]
pub(crate) struct TcpRate {
    whole: Mutex<HashMap<IpAddr, Instant>>,
}

impl TcpRate {
    /// Counts a query. Returns false if the guest has sent too many.
    pub(crate) fn admit(&self, guest: IpAddr, now: Instant) -> bool {
        let mut whole = self.whole.lock();
        if whole.len() >= PRUNE_AT {
            whole.retain(|_, whole| *whole > now);
        }
        let after = whole.get(&guest).copied().unwrap_or(now).max(now) + INTERVAL;
        let is_admitted = after.duration_since(now) <= INTERVAL * BURST;
        if is_admitted {
            whole.insert(guest, after);
        }
        is_admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 100, 0, 3));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 100, 0, 5));

    #[test]
    fn a_burst_of_a_guest_does_not_affect_others() {
        let (rate, now) = (TcpRate::default(), Instant::now());
        let admitted = |guest, at| (0..1000).filter(|_| rate.admit(guest, at)).count();
        assert_eq!(admitted(GUEST, now), 64);
        assert_eq!(admitted(OTHER, now), 64);
        assert_eq!(admitted(GUEST, now + Duration::from_secs(1)), 20);
        assert_eq!(admitted(GUEST, now + Duration::from_secs(3600)), 64);
    }

    #[test]
    fn guests_without_queries_take_no_memory() {
        let (rate, now) = (TcpRate::default(), Instant::now());
        for number in 0..10_000_u32 {
            let later = now + Duration::from_secs(u64::from(number));
            assert!(rate.admit(IpAddr::from(number.to_be_bytes()), later));
        }
        assert!(rate.whole.lock().len() <= PRUNE_AT);
    }
}
