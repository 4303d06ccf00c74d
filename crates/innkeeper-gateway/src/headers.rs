//! The headers that pass between a client and innkeeperd.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use innkeeper_model::access::{ACTOR_HEADER, Actor, SOURCE_HEADER};
use std::net::IpAddr;

/// The prefix of headers that only the gateway sets, and innkeeperd believes.
const OWN_PREFIX: &str = "innkeeper-";

/// The prefix of headers that the web server adds. innkeeperd has no use for them.
const FORWARDED_PREFIX: &str = "x-forwarded-";

/// The prefix of the protocols of the API that a connection can switch to.
const PROTOCOL_PREFIX: &str = "innkeeper-";

/// Headers of one connection (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Headers of a request that end here: innkeeperd never sees a token.
const PRIVATE: [HeaderName; 5] = [
    header::AUTHORIZATION,
    header::COOKIE,
    CSRF_HEADER,
    header::EXPECT,
    header::FORWARDED,
];

/// The header with the CSRF token of a session, which `GET /v1/session` returns.
pub(crate) const CSRF_HEADER: HeaderName = HeaderName::from_static("x-innkeeper-csrf");

/// Returns the protocol of the API that a request switches to, if it does.
pub(crate) fn protocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut values = headers.get_all(header::UPGRADE).iter();
    let value = values.next()?;
    let is_only_one = values.next().is_none();
    let is_known = value
        .to_str()
        .is_ok_and(|name| name.starts_with(PROTOCOL_PREFIX));
    let is_requested = tokens(headers).any(|token| token.eq_ignore_ascii_case("upgrade"));
    (is_only_one && is_known && is_requested).then(|| value.clone())
}

/// Returns the headers of a request for innkeeperd.
pub(crate) fn of_request(mut headers: HeaderMap, actor: &Actor, source: IpAddr) -> HeaderMap {
    remove_hop_by_hop(&mut headers);
    for name in &PRIVATE {
        headers.remove(name);
    }
    let is_foreign = |name: &&HeaderName| {
        name.as_str().starts_with(OWN_PREFIX) || name.as_str().starts_with(FORWARDED_PREFIX)
    };
    let foreign: Vec<_> = headers.keys().filter(is_foreign).cloned().collect();
    for name in foreign {
        headers.remove(name);
    }
    headers.insert(header::HOST, HeaderValue::from_static("innkeeper"));
    for (name, value) in [
        (ACTOR_HEADER, actor.to_string()),
        (SOURCE_HEADER, source.to_canonical().to_string()),
    ] {
        // Both consist of letters, digits and a few signs, so a header can have them.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    headers
}

/// Returns the headers of a request of the gateway itself, on behalf of a client that is not known yet.
pub(crate) fn of_gateway(source: IpAddr) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, HeaderValue::from_static("innkeeper"));
    if let Ok(value) = HeaderValue::try_from(source.to_canonical().to_string()) {
        headers.insert(HeaderName::from_static(SOURCE_HEADER), value);
    }
    headers
}

/// Prepares the headers of innkeeperd's response for the client.
pub(crate) fn of_response(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    protect(headers);
}

/// Adds the headers of every response: no cache keeps it, and no browser takes it for a page.
pub(crate) fn protect(headers: &mut HeaderMap) {
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
}

/// Returns the path and the query of a request, if it is one for the API.
pub(crate) fn api_uri(uri: &Uri) -> Option<Uri> {
    let target = uri.path_and_query()?;
    target
        .path()
        .starts_with("/v1/")
        .then(|| target.clone().into())
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<_> = tokens(headers)
        .filter_map(|token| HeaderName::try_from(token).ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Returns the elements of the header `Connection`.
fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::CONNECTION).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',').map(str::trim))
}

#[cfg(test)]
mod tests {
    use innkeeper_model::access::TokenId;

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, value.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn client_cannot_choose_what_the_daemon_believes() {
        let sent = headers(&[
            ("Innkeeper-Actor", "token:1"),
            ("innkeeper-actor", "token:2"),
            ("innkeeper-source", "127.0.0.1"),
            ("innkeeper-role", "admin"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-host", "evil"),
            ("forwarded", "for=192.0.2.1"),
            ("authorization", "Bearer secret"),
            ("proxy-authorization", "Bearer secret"),
            ("cookie", "a=b"),
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("expect", "100-continue"),
            ("upgrade", "websocket"),
            ("host", "api.example.org"),
            ("content-type", "application/json"),
            ("content-length", "2"),
            ("last-event-id", "7"),
        ]);
        let source = "::ffff:192.0.2.9".parse().expect("an address");
        let passed = of_request(sent, &Actor::Token(TokenId(7)), source);
        let mut passed: Vec<_> = passed
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
            .collect();
        passed.sort();
        assert_eq!(
            passed,
            [
                "content-length: 2",
                "content-type: application/json",
                "host: innkeeper",
                "innkeeper-actor: token:7",
                "innkeeper-source: 192.0.2.9",
                "last-event-id: 7",
            ]
        );
    }

    #[test]
    fn connection_switches_to_protocols_of_the_api_only() {
        let of = |pairs: &[(&str, &str)]| protocol(&headers(pairs));
        let exec = ("upgrade", "innkeeper-exec");
        assert_eq!(
            of(&[exec, ("connection", "keep-alive, Upgrade")]).expect("known"),
            "innkeeper-exec"
        );
        assert_eq!(of(&[exec]), None);
        assert_eq!(of(&[exec, exec, ("connection", "upgrade")]), None);
        assert_eq!(
            of(&[("upgrade", "websocket"), ("connection", "upgrade")]),
            None
        );
        assert_eq!(of(&[("upgrade", "h2c"), ("connection", "upgrade")]), None);
    }

    #[test]
    fn only_the_api_is_passed_on() {
        let of = |uri: &str| api_uri(&uri.parse().expect("a URI")).map(|uri| uri.to_string());
        assert_eq!(of("/v1/guests?a=b").as_deref(), Some("/v1/guests?a=b"));
        assert_eq!(of("http://evil/v1/guests").as_deref(), Some("/v1/guests"));
        for uri in [
            "/metrics",
            "/",
            "/v1",
            "/V1/guests",
            "//v1/guests",
            "*",
            "evil:443",
        ] {
            assert_eq!(of(uri), None, "{uri}");
        }
    }
}
