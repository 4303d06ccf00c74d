//! The seed of a login: a random text in a cookie of the browser that began it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use innkeeper_model::{Code, Failure, Secret};
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// The cookie's name.
pub(super) const COOKIE: &str = "__Host-innkeeper-login";

/// The length of the random part's text.
const LENGTH: usize = 43;

/// A random text, and the path that the login returns to.
pub(super) struct Seed {
    random: Secret,
    home: String,
}

impl Seed {
    /// Creates the seed of a new login.
    ///
    /// # Errors
    /// When the kernel has no randomness.
    pub(super) fn new(home: &str) -> Result<Self, Failure> {
        let mut random = [0; 32];
        getrandom(&mut random, GetRandomFlags::empty()).map_err(|error| {
            let message = format!("cannot create a random text: {error}");
            Failure::new(Code::Internal, message)
        })?;
        Ok(Self {
            random: Secret::new(URL_SAFE_NO_PAD.encode(random)),
            home: home.to_owned(),
        })
    }

    /// Parses a cookie's value.
    pub(super) fn parse(cookie: &str) -> Option<Self> {
        let (random, home) = cookie.split_once('.')?;
        let home = URL_SAFE_NO_PAD.decode(home).ok()?;
        let home = String::from_utf8(home).ok()?;
        let valid = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
        let is_seed = random.len() == LENGTH && random.bytes().all(valid) && super::is_local(&home);
        is_seed.then(|| Self {
            random: Secret::new(random),
            home,
        })
    }

    /// Returns the cookie's value.
    pub(super) fn cookie(&self) -> String {
        let home = URL_SAFE_NO_PAD.encode(&self.home);
        format!("{}.{home}", self.random.expose())
    }

    /// Returns the path that the login returns to.
    pub(super) fn home(&self) -> &str {
        &self.home
    }

    /// Returns the state, which GitHub returns.
    pub(super) fn state(&self) -> String {
        self.derive("state")
    }

    /// Reports whether a text is the state.
    pub(super) fn has_state(&self, state: &str) -> bool {
        self.state().as_bytes().ct_eq(state.as_bytes()).into()
    }

    /// Returns PKCE's verifier (RFC 7636).
    pub(super) fn verifier(&self) -> String {
        self.derive("verifier")
    }

    /// Returns PKCE's challenge, with the method S256.
    pub(super) fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier()))
    }

    fn derive(&self, purpose: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(purpose);
        hash.update([0]);
        hash.update(self.random.expose());
        URL_SAFE_NO_PAD.encode(hash.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed() -> Seed {
        let Ok(seed) = Seed::new("/access?x=1") else {
            panic!("no randomness");
        };
        seed
    }

    #[test]
    fn seed_is_in_the_cookie_and_no_part_reveals_another() {
        let seed = seed();
        let read = Seed::parse(&seed.cookie()).expect("a seed");
        assert_eq!(read.home(), "/access?x=1");
        assert!(read.has_state(&seed.state()) && !read.has_state(""));
        assert_eq!(read.verifier(), seed.verifier());
        let texts = [seed.state(), seed.verifier(), seed.challenge()];
        assert!(texts.iter().all(|text| text.len() == 43));
        assert!(texts[0] != texts[1] && texts[1] != texts[2]);
        assert!(
            !Seed::parse(&self::seed().cookie())
                .expect("a seed")
                .has_state(&seed.state())
        );
    }

    #[test]
    fn cookie_of_another_form_is_none() {
        let good = seed().cookie();
        let home = URL_SAFE_NO_PAD.encode("//evil.example");
        let elsewhere = format!("{}.{home}", "a".repeat(LENGTH));
        for bad in ["", ".", "a.Lw", &good[1..], &elsewhere, &format!("{good}=")] {
            assert!(Seed::parse(bad).is_none(), "{bad}");
        }
    }
}
