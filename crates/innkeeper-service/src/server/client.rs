//! The client of a request that came through Caddy.

use std::net::IpAddr;

use axum::http::HeaderMap;
use ipnet::IpNet;

/// Header with the client's address: Caddy appends it to the ones that the client sent.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Returns the address of a client behind Caddy: the last one in the header that is not a server in front of Caddy, one of
/// `proxies`. Caddy and these servers append the address that they see; the client may have sent the others. `None` for a
/// program on this host.
#[must_use]
pub fn client_address(headers: &HeaderMap, proxies: &[IpNet]) -> Option<IpAddr> {
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
    fn client_is_the_last_address_that_is_not_a_proxy() {
        let proxies = ["10.0.0.0/8", "127.0.0.1/32"].map(|network| network.parse().expect("valid"));
        let client_of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(FORWARDED_FOR, value.parse().expect("a header"));
            }
            let found = client_address(&headers, &proxies);
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
            assert_eq!(client_of(values).as_deref(), expected, "{values:?}");
        }
    }
}
