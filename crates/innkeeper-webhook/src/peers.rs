//! The peers of connections, and the quota of each, so that one cannot occupy every connection.

use std::net::IpAddr;

use axum::http::HeaderMap;
use innkeeper_service::PeerQuota;

/// The header in which a proxy reports its peer.
const FORWARDED_FOR: &str = "X-Forwarded-For";

/// Returns the client behind a request of a peer. For a loopback address that is the last entry of `X-Forwarded-For`, which
/// the proxy on this host added; earlier entries come from the client and are ignored. `None` for a program on this host,
/// which has no limit.
pub(crate) fn client(peer: Option<IpAddr>, headers: &HeaderMap) -> Option<IpAddr> {
    if let Some(peer) = peer.filter(|peer| !peer.is_loopback()) {
        return Some(peer);
    }
    let last = headers.get_all(FORWARDED_FOR).iter().next_back()?;
    let last = last.to_str().ok()?.rsplit(',').next()?.trim();
    last.parse().ok()
}

/// Returns a quota that allows each peer half of `slots`.
pub(crate) fn sharing(slots: usize) -> PeerQuota {
    PeerQuota::new(slots / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_peer_may_hold_half_of_the_slots() {
        let quota = sharing(4);
        let slots = [(); 3].map(|()| quota.acquire(ip("192.0.2.1")));
        assert_eq!(slots.map(|slot| slot.is_some()), [true, true, false]);
    }

    #[test]
    fn the_forwarded_client_counts_only_from_a_local_proxy() {
        let mut headers = HeaderMap::new();
        let of = |peer: &str, headers: &HeaderMap| client(Some(ip(peer)), headers);
        assert_eq!(of("127.0.0.1", &headers), None);
        let forged = "198.51.100.1, 192.0.2.7".parse().expect("a header");
        headers.insert(FORWARDED_FOR, forged);
        assert_eq!(of("127.0.0.1", &headers), Some(ip("192.0.2.7")));
        assert_eq!(of("192.0.2.9", &headers), Some(ip("192.0.2.9")));
    }
}
