//! Quota for each peer, so that one cannot occupy every connection.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Counts the slots that each peer holds. Clones share the counts.
#[derive(Clone, Debug)]
pub struct PeerQuota {
    limit: usize,
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl PeerQuota {
    /// Allows each peer `limit` slots, and at least one.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            counts: Arc::default(),
        }
    }

    /// Acquires a slot until the result is dropped. `None` when the peer has reached its limit.
    #[must_use]
    pub fn acquire(&self, peer: IpAddr) -> Option<PeerSlot> {
        self.acquire_within(peer, self.limit)
    }

    /// Returns the number of peers that hold slots.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.counts.lock().len()
    }

    /// Acquires a slot until the result is dropped. `None` when the peer holds `limit` slots, which is at least one, or has
    /// reached its own limit.
    #[must_use]
    pub fn acquire_within(&self, peer: IpAddr, limit: usize) -> Option<PeerSlot> {
        let limit = limit.clamp(1, self.limit);
        let peer = subscriber(peer);
        let mut counts = self.counts.lock();
        let count = counts.entry(peer).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(PeerSlot {
            quota: self.clone(),
            peer,
        })
    }
}

/// A slot held by a peer.
#[derive(Debug)]
pub struct PeerSlot {
    quota: PeerQuota,
    peer: IpAddr,
}

impl Drop for PeerSlot {
    fn drop(&mut self) {
        let mut counts = self.quota.counts.lock();
        if let Some(count) = counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}

/// Returns the unit of quotas and limits: an IPv4 address, or the /64 network of one IPv6 subscriber.
#[must_use]
pub fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let prefix = address.to_bits() & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from_bits(prefix))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_peer_has_a_limit_of_its_own() {
        let quota = PeerQuota::new(2);
        let first = quota.acquire(ip("192.0.2.1")).expect("the first slot");
        let _second = quota
            .acquire(ip("::ffff:192.0.2.1"))
            .expect("the second slot");
        assert!(quota.acquire(ip("192.0.2.1")).is_none());
        assert!(quota.acquire(ip("192.0.2.2")).is_some());
        drop(first);
        assert!(quota.acquire(ip("192.0.2.1")).is_some());

        let one = PeerQuota::new(0);
        let held = one.acquire(ip("2001:db8::1")).expect("at least one slot");
        assert!(one.acquire(ip("2001:db8::2")).is_none());
        assert!(one.acquire(ip("2001:db8:0:1::2")).is_some());
        drop(held);
        assert!(one.counts.lock().is_empty());
    }
}
