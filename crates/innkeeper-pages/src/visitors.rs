//! Limits of live logs: of each visitor's address, and of all together.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::HeaderMap;
use innkeeper_service::{Pages, PeerQuota, PeerSlot};
use ipnet::IpNet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Header with the visitor's address: Caddy appends it to the ones that the visitor sent.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// The visitors who follow logs. Clones share the counts.
#[derive(Clone)]
pub(crate) struct Visitors {
    of_address: PeerQuota,
    all: Arc<Semaphore>,
}

/// A visitor's permission to follow a log, until it is dropped.
pub(crate) struct StreamSlot {
    _total: OwnedSemaphorePermit,
    _address: Option<PeerSlot>,
}

impl Visitors {
    pub(crate) fn new(settings: &Pages) -> Self {
        Self {
            of_address: PeerQuota::new(settings.max_streams_per_address),
            all: Arc::new(Semaphore::new(settings.share())),
        }
    }

    /// Acquires a slot for a visitor. `None` when its address or all together have reached their limit.
    pub(crate) fn stream_slot(&self, visitor: Option<IpAddr>) -> Option<StreamSlot> {
        let address = match visitor {
            None => None,
            Some(address) => Some(self.of_address.acquire(address)?),
        };
        let total = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some(StreamSlot {
            _total: total,
            _address: address,
        })
    }
}

/// Returns the visitor's address: the last one in the header that is not a server in front of Caddy. Caddy and these servers
/// append the address that they see; the visitor may have sent the others. `None` for a program on this host.
pub(crate) fn visitor(headers: &HeaderMap, proxies: &[IpNet]) -> Option<IpAddr> {
    let mut nearest = None;
    for value in headers.get_all(FORWARDED_FOR).iter().rev() {
        for address in value.to_str().ok()?.rsplit(',') {
            let Ok(address) = address.trim().parse::<IpAddr>() else {
                return nearest;
            };
            let is_proxy = proxies
                .iter()
                .any(|network| network.contains(&address.to_canonical()));
            nearest = Some(address);
            if !is_proxy {
                return nearest;
            }
        }
    }
    nearest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visitor_is_the_last_address_that_is_not_a_proxy() {
        let proxies = ["10.0.0.0/8", "127.0.0.1/32"].map(|network| network.parse().expect("valid"));
        let visitor_of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(FORWARDED_FOR, value.parse().expect("a header"));
            }
            let found = visitor(&headers, &proxies);
            found.map(|address| address.to_string())
        };
        for (values, expected) in [
            (&["192.0.2.1"][..], Some("192.0.2.1")),
            (&["198.51.100.9, 192.0.2.1"], Some("192.0.2.1")),
            (
                &["198.51.100.9, 192.0.2.1, 10.0.0.2, 127.0.0.1"],
                Some("192.0.2.1"),
            ),
            (
                &["198.51.100.9, 192.0.2.1", "::ffff:10.0.0.2"],
                Some("192.0.2.1"),
            ),
            (&["10.0.0.2"], Some("10.0.0.2")),
            (&["unknown, 10.0.0.2"], Some("10.0.0.2")),
            (&["unknown"], None),
            (&[], None),
        ] {
            assert_eq!(visitor_of(values).as_deref(), expected, "{values:?}");
        }
    }
}
