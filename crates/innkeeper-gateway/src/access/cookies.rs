//! Cookies of requests and responses.

use axum::http::{HeaderMap, HeaderValue, header};
use innkeeper_model::access::WIRE_COOKIE;

/// The cookie with a visitor's pass to one host.
pub(crate) const PASS: &str = "__Host-innkeeper-preview";

/// The cookie that a browser got before its visitor logged in. One-time codes are bound to it.
pub(crate) const NONCE: &str = "__Host-innkeeper-nonce";

/// The cookie of another program that decides who its visitors are. Its name is a contract.
pub(crate) const SANDBOX: &str = WIRE_COOKIE;

/// The maximum number of cookies of one name that are looked at. Browsers send several if another host of the same domain has
/// set one too.
const MAX_SAME: usize = 8;

/// Returns the values of the cookies with a name.
pub(crate) fn values<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    let fields = headers.get_all(header::COOKIE).iter();
    let texts = fields.filter_map(|value| value.to_str().ok());
    let pairs = texts.flat_map(|text| text.split(';'));
    let named = pairs.filter_map(move |pair| {
        let (found, value) = pair.split_once('=')?;
        (found.trim() == name).then_some(value.trim())
    });
    named.take(MAX_SAME)
}

/// Returns the field that sets a cookie of this host for pages of another site that embed it, with a separate one for each of
/// these sites.
pub(crate) fn embedded(name: &str, value: &str, seconds: i64) -> Option<HeaderValue> {
    let rule = "Secure; HttpOnly; SameSite=None; Partitioned";
    let text = format!("{name}={value}; Path=/; Max-Age={seconds}; {rule}");
    let mut header = HeaderValue::try_from(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let mut headers = HeaderMap::new();
        for field in [
            "a=1; sandbox_preview=one;b=2",
            "xsandbox_preview=x; sandbox_preview; SANDBOX_PREVIEW=y; =sandbox_preview=z",
            " sandbox_preview = two ; sandbox_preview=a=b",
        ] {
            headers.append(header::COOKIE, field.parse().expect("a header"));
        }
        let found: Vec<_> = values(&headers, SANDBOX).collect();
        assert_eq!(found, ["one", "two", "a=b"]);
        assert_eq!(values(&headers, PASS).count(), 0);
    }

    #[test]
    fn number_of_cookies_of_a_name_is_limited() {
        let mut headers = HeaderMap::new();
        let many = format!("{PASS}=x; ").repeat(1000);
        headers.insert(header::COOKIE, many.parse().expect("a header"));
        assert_eq!(values(&headers, PASS).count(), MAX_SAME);
    }
}
