//! From a request's token to its actor.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue, header};
use innkeeper_model::access::{Actor, TokenId, TokenText};
use tokio::sync::watch;

use crate::failures::Failures;
use crate::pairs::Pairs;
use crate::published::{Published, Unknown};
use crate::session;

/// The authentication scheme of tokens (RFC 6750).
const SCHEME: &str = "Bearer ";

/// The tokens that clients authenticate with, and their failures.
#[derive(Debug)]
pub(crate) struct Credentials {
    published: Published,
    pairs: watch::Receiver<Arc<Pairs>>,
    failures: Failures,
}

/// The reason for which a request is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denial {
    /// It has no valid token.
    Unauthorized,
    /// Too many requests of its address had none. With the time after which one more may.
    TooMany(Duration),
    /// The tokens of innkeeperd are not known.
    Unknown,
}

impl Credentials {
    pub(crate) fn new(published: Published, pairs: watch::Receiver<Arc<Pairs>>) -> Self {
        Self {
            published,
            pairs,
            failures: Failures::default(),
        }
    }

    /// Authenticates a request: by its token, or by the cookie of a session if it has none. The caller must check first that a
    /// page of this host made a request with the cookie. A token of `innkeeper token` is accepted while its address is limited: it cannot be guessed,
    /// and other users of the address must not be able to lock its owner out.
    ///
    /// # Errors
    /// The reason for which the request must not be passed on. It has been counted.
    pub(crate) fn authenticate(
        &self,
        headers: &HeaderMap,
        client: IpAddr,
    ) -> Result<Actor, Denial> {
        let now = Instant::now();
        let cookie = match headers.contains_key(header::AUTHORIZATION) {
            true => None,
            false => session::of(headers),
        };
        let text = match &cookie {
            Some(session) => Some(session.text().expose()),
            None => bearer(headers),
        };
        let actor = match text {
            None => None,
            Some(text) => match TokenText::parse(text) {
                Ok(token) => match self.published.accepts(&token) {
                    Ok(true) => Some(Actor::Token(token.id())),
                    Ok(false) => None,
                    Err(Unknown) => return Err(Denial::Unknown),
                },
                Err(_) => {
                    if let Some(wait) = self.failures.wait(client, now) {
                        return Err(Denial::TooMany(wait));
                    }
                    let pairs = Arc::clone(&self.pairs.borrow());
                    pairs.find(text).cloned().map(Actor::File)
                }
            },
        };
        actor.ok_or_else(|| self.deny(client, now))
    }

    /// Counts a request without a valid token.
    pub(crate) fn deny(&self, client: IpAddr, now: Instant) -> Denial {
        match self.failures.count(client, now) {
            None => Denial::Unauthorized,
            Some(wait) => Denial::TooMany(wait),
        }
    }

    /// Returns the time for which an address must cause no further failure, if it has caused too many.
    pub(crate) fn wait(&self, client: IpAddr, now: Instant) -> Option<Duration> {
        self.failures.wait(client, now)
    }

    /// Reports whether a token of innkeeperd is valid.
    ///
    /// # Errors
    /// [`Unknown`] if that is not known. No request may pass then.
    pub(crate) fn accepts(&self, token: &TokenText) -> Result<bool, Unknown> {
        self.published.accepts(token)
    }

    /// Reports whether the token with a number is valid: see [`Published::is_current`].
    ///
    /// # Errors
    /// [`Unknown`] if that is not known. No request may pass then.
    pub(crate) fn is_current(&self, id: TokenId) -> Result<bool, Unknown> {
        self.published.is_current(id)
    }

    /// Returns the number of tokens of innkeeperd, if they are known.
    pub(crate) fn tokens(&self) -> Option<usize> {
        self.published.count()
    }

    /// Returns the number of addresses with failures.
    pub(crate) fn failing_addresses(&self) -> usize {
        self.failures.addresses()
    }
}

/// Returns the token of a request. `None` also for two of them: a server in front might have looked at the other one.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    bearer_of(value)
}

/// Returns the token in a header `Authorization`, if it has one.
pub(crate) fn bearer_of(value: &HeaderValue) -> Option<&str> {
    let value = value.to_str().ok()?;
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then_some(token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_in_one_header_of_one_scheme() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().expect("a header"));
            }
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(of(&["Bearer abc"]).as_deref(), Some("abc"));
        assert_eq!(of(&["bearer  abc "]).as_deref(), Some("abc"));
        let none: [&[&str]; 6] = [
            &[],
            &[""],
            &["abc"],
            &["Basic abc"],
            &["Bearerabc"],
            &["Bearer a", "Bearer b"],
        ];
        for values in none {
            assert_eq!(of(values), None, "{values:?}");
        }
    }
}
