//! The rate limit of requests without a valid token, by the address of the client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use innkeeper_service::subscriber;
use parking_lot::Mutex;

/// The number of failures that an address may cause at once.
const BURST: u32 = 10;

/// The time after which it may cause one more.
const INTERVAL: Duration = Duration::from_secs(6);

/// The maximum number of addresses that are counted by themselves. All others share one count.
const MAX_ADDRESSES: usize = 65_536;

/// The minimum time between two searches for addresses that can be forgotten.
const PURGE_INTERVAL: Duration = Duration::from_secs(1);

/// Failures of all addresses: a leaky bucket for each IPv4 address and each /64 network of IPv6.
#[derive(Debug, Default)]
pub(crate) struct Failures(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    buckets: HashMap<IpAddr, Bucket>,
    /// The bucket of addresses that found the table full.
    others: Bucket,
    purged: Option<Instant>,
}

/// The time at which a bucket is empty. `None` means that it is.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket(Option<Instant>);

impl Bucket {
    /// Returns the time until one more failure fits, if none does now.
    fn wait(self, now: Instant) -> Option<Duration> {
        let level = self.0?.saturating_duration_since(now);
        let wait = (level + INTERVAL).saturating_sub(INTERVAL * BURST);
        (!wait.is_zero()).then_some(wait)
    }

    /// Adds a failure.
    fn add(&mut self, now: Instant) {
        let empty = self.0.unwrap_or(now).max(now);
        self.0 = Some(empty + INTERVAL);
    }

    fn is_empty(self, now: Instant) -> bool {
        self.0.is_none_or(|empty| empty <= now)
    }
}

impl Failures {
    /// Returns the time for which an address must cause no further failure, if it has caused too many.
    pub(crate) fn wait(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let table = self.0.lock();
        let is_full = table.buckets.len() >= MAX_ADDRESSES;
        match table.buckets.get(&subscriber(address)) {
            Some(bucket) => bucket.wait(now),
            None if is_full => table.others.wait(now),
            None => None,
        }
    }

    /// Counts a failure, unless the address has caused too many. Returns the time to wait then.
    pub(crate) fn count(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let mut table = self.0.lock();
        let bucket = table.bucket(address, now);
        let wait = bucket.wait(now);
        if wait.is_none() {
            bucket.add(now);
        }
        wait
    }

    /// Returns the number of addresses in the table.
    pub(crate) fn addresses(&self) -> usize {
        self.0.lock().buckets.len()
    }
}

impl Table {
    /// Returns the bucket of an address. The table never grows beyond its limit.
    fn bucket(&mut self, address: IpAddr, now: Instant) -> &mut Bucket {
        let address = subscriber(address);
        if self.buckets.len() >= MAX_ADDRESSES && !self.buckets.contains_key(&address) {
            self.purge(now);
            if self.buckets.len() >= MAX_ADDRESSES {
                return &mut self.others;
            }
        }
        self.buckets.entry(address).or_default()
    }

    fn purge(&mut self, now: Instant) {
        let is_early = |purged| now.saturating_duration_since(purged) < PURGE_INTERVAL;
        if !self.purged.is_some_and(is_early) {
            self.purged = Some(now);
            self.buckets.retain(|_, bucket| !bucket.is_empty(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn address_is_limited_after_a_burst_and_recovers() {
        let failures = Failures::default();
        let start = Instant::now();
        let bad = ip("192.0.2.1");
        for _ in 0..BURST {
            assert_eq!(failures.wait(bad, start), None);
            assert_eq!(failures.count(bad, start), None);
        }
        assert_eq!(failures.count(bad, start), Some(INTERVAL));
        assert_eq!(failures.wait(bad, start), Some(INTERVAL));
        assert_eq!(failures.wait(ip("192.0.2.2"), start), None);

        // A refused request does not count again.
        let later = start + INTERVAL;
        assert_eq!(failures.count(bad, later), None);
        assert_eq!(failures.count(bad, later), Some(INTERVAL));
        let much_later = start + INTERVAL * 100;
        for _ in 0..BURST {
            assert_eq!(failures.count(bad, much_later), None);
        }
        assert!(failures.count(bad, much_later).is_some());
    }

    #[test]
    fn ipv6_network_counts_as_one_address() {
        let failures = Failures::default();
        let now = Instant::now();
        for host in 0..BURST {
            assert_eq!(failures.count(ip(&format!("2001:db8::{host}")), now), None);
        }
        assert!(failures.wait(ip("2001:db8::ffff"), now).is_some());
        assert_eq!(failures.wait(ip("2001:db8:0:1::1"), now), None);
        assert_eq!(failures.wait(ip("::ffff:192.0.2.1"), now), None);
    }

    #[test]
    fn full_table_is_bounded_and_still_limits() {
        let failures = Failures::default();
        let start = Instant::now();
        let address = |i: usize| {
            let bits = u32::try_from(i).expect("small") + 0x0100_0000;
            IpAddr::V4(Ipv4Addr::from_bits(bits))
        };
        for i in 0..MAX_ADDRESSES {
            assert_eq!(failures.count(address(i), start), None);
        }
        for i in 0..10 {
            assert_eq!(failures.count(address(MAX_ADDRESSES + i), start), None);
        }
        assert!(failures.count(address(MAX_ADDRESSES + 10), start).is_some());
        assert_eq!(failures.addresses(), MAX_ADDRESSES);
        // Those in the table keep their own counts, and make room once they have recovered.
        assert_eq!(failures.count(address(0), start), None);
        let later = start + INTERVAL * 2 + PURGE_INTERVAL;
        assert_eq!(failures.count(address(MAX_ADDRESSES + 20), later), None);
        assert_eq!(failures.addresses(), 1);
    }
}
