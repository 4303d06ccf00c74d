//! Quota for each peer, so that one cannot occupy every connection.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use axum::http::HeaderMap;
use parking_lot::Mutex;

/// The header in which a proxy reports its peer.
const FORWARDED_FOR: &str = "X-Forwarded-For";

/// The address at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

impl Peer {
    /// Returns the client behind a request. For a loopback address that is the last entry of `X-Forwarded-For`, which
    /// the proxy on this host added; earlier entries come from the client and are ignored. `None` for a program on this
    /// host, which has no limit.
    pub(crate) fn client(self, headers: &HeaderMap) -> Option<IpAddr> {
        let peer = self.0.to_canonical();
        if !peer.is_loopback() {
            return Some(peer);
        }
        let last = headers.get_all(FORWARDED_FOR).iter().next_back()?;
        let last = last.to_str().ok()?.rsplit(',').next()?.trim();
        last.parse().ok()
    }
}

/// Counts the slots that each peer holds. Clones share the counts.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    limit: usize,
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Peers {
    /// Allows each peer half of `slots`, and at least one.
    pub(crate) fn sharing(slots: usize) -> Self {
        Self {
            limit: (slots / 2).max(1),
            counts: Arc::default(),
        }
    }

    /// Acquires a slot until the result is dropped. `None` when the peer has reached its limit.
    pub(crate) fn acquire(&self, peer: IpAddr) -> Option<PeerSlot> {
        let peer = network(peer);
        let mut counts = self.counts.lock();
        let count = counts.entry(peer).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(PeerSlot {
            peers: self.clone(),
            peer,
        })
    }
}

/// A slot held by a peer.
#[derive(Debug)]
pub(crate) struct PeerSlot {
    peers: Peers,
    peer: IpAddr,
}

impl Drop for PeerSlot {
    fn drop(&mut self) {
        let mut counts = self.peers.counts.lock();
        if let Some(count) = counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}

/// Returns the unit of the quota: an IPv4 address, or the /64 network of one IPv6 subscriber.
fn network(address: IpAddr) -> IpAddr {
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
    fn a_peer_may_hold_half_of_the_slots() {
        let peers = Peers::sharing(4);
        let first = peers.acquire(ip("192.0.2.1")).expect("the first slot");
        let _second = peers
            .acquire(ip("::ffff:192.0.2.1"))
            .expect("the second slot");
        assert!(peers.acquire(ip("192.0.2.1")).is_none());
        assert!(peers.acquire(ip("192.0.2.2")).is_some());
        drop(first);
        assert!(peers.acquire(ip("192.0.2.1")).is_some());

        let one = Peers::sharing(1);
        let held = one.acquire(ip("2001:db8::1")).expect("at least one slot");
        assert!(one.acquire(ip("2001:db8::2")).is_none());
        assert!(one.acquire(ip("2001:db8:0:1::2")).is_some());
        drop(held);
        assert!(one.counts.lock().is_empty());
    }

    #[test]
    fn the_forwarded_client_counts_only_from_a_local_proxy() {
        let mut headers = HeaderMap::new();
        assert_eq!(Peer(ip("127.0.0.1")).client(&headers), None);
        let forged = "198.51.100.1, 192.0.2.7".parse().expect("a header");
        headers.insert(FORWARDED_FOR, forged);
        assert_eq!(
            Peer(ip("127.0.0.1")).client(&headers),
            Some(ip("192.0.2.7"))
        );
        assert_eq!(
            Peer(ip("192.0.2.9")).client(&headers),
            Some(ip("192.0.2.9"))
        );
    }
}
