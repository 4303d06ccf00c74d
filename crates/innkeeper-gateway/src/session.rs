//! The session of a person in a browser: a cookie with the text of a token.
//!
//! Browsers send cookies with requests that other sites cause. A request with a cookie therefore counts as its person's only
//! after a check of its origin.

use axum::http::{HeaderMap, HeaderValue, header};
use innkeeper_model::access::TokenText;

/// The name of the cookie. Its prefix makes browsers accept it over HTTPS only, for this host only.
pub const COOKIE: &str = "__Host-innkeeper";

/// Returns the session's token of a request. `None` also for two cookies of the name: another part might have looked at the
/// other one. The token may still be unknown, expired or revoked.
#[must_use]
pub fn of(headers: &HeaderMap) -> Option<TokenText> {
    TokenText::parse(cookie(headers, COOKIE)?).ok()
}

/// Returns the value of a cookie that a request has exactly once.
#[must_use]
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let texts = headers.get_all(header::COOKIE).iter();
    let texts = texts.filter_map(|value| value.to_str().ok());
    let pairs = texts.flat_map(|text| text.split(';'));
    let mut values = pairs.filter_map(|pair| {
        let (key, value) = pair.trim().split_once('=')?;
        (key == name).then_some(value)
    });
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// Returns a header that sets a cookie of this host for a time, or deletes it with 0 seconds. `None` for a value that is not
/// valid in a cookie. The cookie is not readable for scripts, and requests that other sites cause do not carry it, except for
/// links to pages.
#[must_use]
pub fn set_cookie(name: &str, value: &str, seconds: u64) -> Option<HeaderValue> {
    let valid = |b: u8| b.is_ascii_graphic() && !b"\",;\\".contains(&b);
    if !value.bytes().all(valid) {
        return None;
    }
    let text = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}");
    let mut header = HeaderValue::try_from(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

#[cfg(test)]
mod tests {
    use innkeeper_model::access::TokenId;

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::COOKIE, value.parse().expect("a header"));
        }
        headers
    }

    #[test]
    fn session_is_the_one_cookie_of_its_name() {
        let token = TokenText::new(TokenId(7), &[1; 32]);
        let cookie = format!("{COOKIE}={}", token.text().expose());
        let found = |values: &[&str]| of(&headers(values)).map(|token| token.id());
        assert_eq!(found(&[&cookie]), Some(TokenId(7)));
        assert_eq!(found(&[&format!("a=b; {cookie};c=d")]), Some(TokenId(7)));
        assert_eq!(found(&["a=b", &cookie]), Some(TokenId(7)));
        for none in [
            vec![],
            vec!["a=b"],
            vec!["__Host-innkeeper=x"],
            vec!["__host-innkeeper=x"],
            vec![cookie.as_str(), cookie.as_str()],
        ] {
            assert_eq!(found(&none), None, "{none:?}");
        }
        let prefixed = format!("x{cookie}");
        assert_eq!(found(&[&prefixed]), None);
    }

    #[test]
    fn cookie_is_for_this_host_and_hidden_from_scripts() {
        let set = set_cookie(COOKIE, "ik_7_x", 60).expect("a header");
        assert_eq!(
            set,
            "__Host-innkeeper=ik_7_x; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=60"
        );
        assert!(!format!("{set:?}").contains("ik_7_x"));
        for bad in ["a b", "a;b", "a,b", "a\"b", "a\nb", "ä"] {
            assert_eq!(set_cookie(COOKIE, bad, 60), None, "{bad:?}");
        }
    }
}
