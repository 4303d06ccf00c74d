//! Requests with the cookie of a session: whether a page of this host made them.
//!
//! Browsers send the cookie with requests of other sites, too: previews share a registrable domain with the gateway, so that
//! `SameSite` alone stops none of theirs. Such a request counts only with both of these:
//!
//! - the header `Origin` with exactly this host's; a GET may have `Sec-Fetch-Site: same-origin` in its place, since browsers
//!   send no origin with it. Scripts can set neither.
//! - the CSRF token of the session in the header [`CSRF_HEADER`], which a page of another site can neither read nor send.

use axum::http::{HeaderMap, HeaderName, Method, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use innkeeper_model::access::TokenText;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::headers::CSRF_HEADER;

/// The header with the relation of a request's page to its target (Fetch Metadata).
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Returns the CSRF token of a session. It is of no use without the session's cookie.
pub(crate) fn csrf_token(session: &TokenText) -> String {
    let mut hash = Sha256::new();
    hash.update(b"innkeeper csrf\0");
    hash.update(session.text().expose());
    URL_SAFE_NO_PAD.encode(hash.finalize())
}

/// Reports whether a page of this host made a request: see the module.
pub(crate) fn is_own(method: &Method, headers: &HeaderMap, session: &TokenText) -> bool {
    let token = single(headers, &CSRF_HEADER).unwrap_or_default();
    is_same_origin(method, headers) && is_token(token, session)
}

/// Reports whether a text is the CSRF token of a session.
pub(crate) fn is_token(text: &str, session: &TokenText) -> bool {
    text.as_bytes().ct_eq(csrf_token(session).as_bytes()).into()
}

/// Reports whether a request comes from a page of this host, by its headers that scripts cannot set.
pub(crate) fn is_same_origin(method: &Method, headers: &HeaderMap) -> bool {
    if headers.contains_key(header::ORIGIN) {
        let own = single(headers, &header::HOST).map(|host| format!("https://{host}"));
        return own.is_some() && single(headers, &header::ORIGIN) == own.as_deref();
    }
    let is_read = method == Method::GET && !headers.contains_key(header::UPGRADE);
    is_read && single(headers, &FETCH_SITE) == Some("same-origin")
}

/// Returns the value of a header that a request has exactly once.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use innkeeper_model::access::TokenId;

    use super::*;

    #[test]
    fn requests_of_other_sites_are_recognized() {
        let session = TokenText::new(TokenId(7), &[1; 32]);
        let csrf = csrf_token(&session);
        let other = csrf_token(&TokenText::new(TokenId(8), &[1; 32]));
        let own = |method: &Method, pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, "api.example.org".parse().expect("a header"));
            for (name, value) in pairs {
                headers.append(*name, value.parse().expect("a header"));
            }
            is_own(method, &headers, &session)
        };
        let (get, post) = (Method::GET, Method::POST);
        let token = ("x-innkeeper-csrf", csrf.as_str());
        let origin = ("origin", "https://api.example.org");
        let fetch = ("sec-fetch-site", "same-origin");
        assert!(own(&post, &[token, origin]) && own(&get, &[token, origin]));
        assert!(own(&get, &[token, fetch]));
        for pairs in [
            vec![],
            vec![token],
            vec![origin],
            vec![token, fetch],
            vec![token, ("origin", "null")],
            vec![token, ("origin", "https://web.api.example.org")],
            vec![token, ("origin", "https://api.example.org.evil.example")],
            vec![token, ("origin", "http://api.example.org")],
            vec![token, origin, origin],
            vec![token, token, origin],
            vec![("x-innkeeper-csrf", other.as_str()), origin],
            vec![("x-innkeeper-csrf", ""), origin],
        ] {
            assert!(!own(&post, &pairs), "{pairs:?}");
        }
        for pairs in [
            vec![token],
            vec![fetch],
            vec![token, ("sec-fetch-site", "same-site")],
            vec![token, ("sec-fetch-site", "none")],
            vec![token, fetch, ("upgrade", "websocket")],
            vec![token, fetch, ("origin", "https://web.example.org")],
        ] {
            assert!(!own(&get, &pairs), "{pairs:?}");
        }
    }
}
