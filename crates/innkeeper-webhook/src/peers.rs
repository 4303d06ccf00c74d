//! A limit for each peer, so that one cannot occupy every connection.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::HeaderMap;

/// The header in which a proxy names its peer.
const FORWARDED_FOR: &str = "X-Forwarded-For";

/// The address at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

impl Peer {
    /// The client behind a request. On a loopback address that is the last entry of `X-Forwarded-For`, which
    /// the proxy on this host added itself; earlier entries come from the client and are ignored. `None`
    /// for a program on this host, which has no limit.
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

/// Counts what each peer occupies. Clones share the counts.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    limit: usize,
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Peers {
    /// Allows each peer half of `places`, and at least one.
    pub(crate) fn sharing(places: usize) -> Self {
        Self {
            limit: (places / 2).max(1),
            counts: Arc::default(),
        }
    }

    /// Occupies a place until the result is dropped. `None` when the peer has reached its limit.
    pub(crate) fn enter(&self, peer: IpAddr) -> Option<Occupied> {
        let peer = network(peer);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(peer).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Occupied {
            peers: self.clone(),
            peer,
        })
    }
}

/// A place that a peer occupies.
#[derive(Debug)]
pub(crate) struct Occupied {
    peers: Peers,
    peer: IpAddr,
}

impl Drop for Occupied {
    fn drop(&mut self) {
        let counts = &self.peers.counts;
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}

/// The unit that is counted: an IPv4 address, or the /64 network that one IPv6 subscriber has to itself.
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
    fn a_peer_has_half_of_the_places_and_returns_them() {
        let peers = Peers::sharing(4);
        let first = peers.enter(ip("192.0.2.1")).expect("the first place");
        let _second = peers
            .enter(ip("::ffff:192.0.2.1"))
            .expect("the second place");
        assert!(peers.enter(ip("192.0.2.1")).is_none());
        assert!(peers.enter(ip("192.0.2.2")).is_some());
        drop(first);
        assert!(peers.enter(ip("192.0.2.1")).is_some());

        let one = Peers::sharing(1);
        let held = one.enter(ip("2001:db8::1")).expect("at least one place");
        assert!(one.enter(ip("2001:db8::2")).is_none());
        assert!(one.enter(ip("2001:db8:0:1::2")).is_some());
        drop(held);
        assert!(one.counts.lock().expect("unpoisoned").is_empty());
    }

    #[test]
    fn only_a_proxy_on_this_host_names_the_client() {
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
