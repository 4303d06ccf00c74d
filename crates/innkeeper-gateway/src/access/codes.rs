//! One-time codes: a browser gets one on the gateway's host, and exchanges it for a pass on the preview's.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use innkeeper_model::GuestName;
use innkeeper_model::access::TokenId;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::key;
use super::visit::Target;

/// The time for which a code is valid.
const LIFETIME: Duration = Duration::from_secs(60);

/// The maximum number of codes that wait for their exchange.
const MAX_CODES: usize = 10_000;

/// The maximum number of codes of one session that wait. One more ends the oldest.
const MAX_OF_SESSION: usize = 32;

/// The length of a nonce, and of its challenge, in characters.
const NONCE_LENGTH: usize = 43;

/// The codes that have not been exchanged. They end with the program: a browser starts again then.
#[derive(Debug, Default)]
pub(crate) struct Codes(Mutex<HashMap<[u8; 32], Entry>>);

/// The visit that a code is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// The preview.
    pub(crate) slug: GuestName,
    /// The host on which the code is exchanged.
    pub(crate) host: String,
    /// The session of the person.
    pub(crate) session: TokenId,
    /// The page that the visitor wanted to see.
    pub(crate) target: Target,
}

#[derive(Debug)]
struct Entry {
    ticket: Ticket,
    challenge: Challenge,
    issued: Instant,
}

/// The digest of a nonce. URLs have it, and the cookie on the preview's host has the nonce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Challenge(String);

impl Challenge {
    /// Returns the challenge of a nonce.
    pub(crate) fn of(nonce: &str) -> Self {
        Self(URL_SAFE_NO_PAD.encode(Sha256::digest(nonce)))
    }

    /// Parses the text of a challenge.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        is_nonce(text).then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns a new nonce.
///
/// # Errors
/// When the kernel returns no random bytes.
pub(crate) fn nonce() -> io::Result<String> {
    Ok(URL_SAFE_NO_PAD.encode(key::random()?))
}

/// Reports whether a text has the form of a nonce.
pub(crate) fn is_nonce(text: &str) -> bool {
    let is_valid = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    text.len() == NONCE_LENGTH && text.bytes().all(is_valid)
}

impl Codes {
    /// Returns a new code, or `None` while too many wait.
    ///
    /// # Errors
    /// When the kernel returns no random bytes.
    pub(crate) fn issue(
        &self,
        ticket: Ticket,
        challenge: Challenge,
        now: Instant,
    ) -> io::Result<Option<String>> {
        let code = nonce()?;
        let mut codes = self.0.lock();
        codes.retain(|_, entry| entry.is_valid(now));
        let own = |entry: &&Entry| entry.ticket.session == ticket.session;
        if codes.values().filter(own).count() >= MAX_OF_SESSION {
            let oldest = codes.iter().filter(|(_, entry)| own(entry));
            let oldest = oldest.min_by_key(|(_, entry)| entry.issued);
            if let Some(digest) = oldest.map(|(digest, _)| *digest) {
                codes.remove(&digest);
            }
        }
        if codes.len() >= MAX_CODES {
            return Ok(None);
        }
        let entry = Entry {
            ticket,
            challenge,
            issued: now,
        };
        codes.insert(digest(&code), entry);
        Ok(Some(code))
    }

    /// Exchanges a code for its visit. The code is invalid afterwards, also after a failure.
    pub(crate) fn redeem<'a>(
        &self,
        code: &str,
        host: &str,
        nonces: impl Iterator<Item = &'a str>,
        now: Instant,
    ) -> Option<Ticket> {
        let entry = self.0.lock().remove(&digest(code))?;
        let matches = |nonce: &str| {
            let challenge = Challenge::of(nonce);
            let expected = entry.challenge.0.as_bytes();
            bool::from(challenge.0.as_bytes().ct_eq(expected))
        };
        let is_bound = entry.ticket.host == host && nonces.into_iter().any(matches);
        (entry.is_valid(now) && is_bound).then_some(entry.ticket)
    }
}

impl Entry {
    fn is_valid(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.issued) < LIFETIME
    }
}

/// Returns the key of a code in the table: a search for it takes no time that depends on the code itself.
fn digest(code: &str) -> [u8; 32] {
    Sha256::digest(code).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "web-7.example.org";

    fn ticket(session: i64) -> Ticket {
        Ticket {
            slug: GuestName::parse("web-7").expect("a name"),
            host: HOST.to_owned(),
            session: TokenId(session),
            target: Target::root(),
        }
    }

    #[test]
    fn code_is_exchanged_once_by_its_browser_on_its_host() {
        let codes = Codes::default();
        let now = Instant::now();
        let nonce = nonce().expect("random");
        let issue = || {
            let code = codes.issue(ticket(1), Challenge::of(&nonce), now);
            code.expect("random").expect("room")
        };
        let redeem = |code: &str, host, nonces: &[&str], now| {
            codes.redeem(code, host, nonces.iter().copied(), now)
        };
        let own = nonce.as_str();
        let code = issue();
        assert_eq!(redeem(&code, HOST, &["x", own], now), Some(ticket(1)));
        assert_eq!(redeem(&code, HOST, &[own], now), None, "twice");
        for (host, nonces, later) in [
            ("web-8.example.org", &[own][..], Duration::ZERO),
            (HOST, &[], Duration::ZERO),
            (HOST, &["x"], Duration::ZERO),
            (HOST, &[own], LIFETIME),
        ] {
            let code = issue();
            assert_eq!(
                redeem(&code, host, nonces, now + later),
                None,
                "{host} {nonces:?}"
            );
            assert_eq!(redeem(&code, HOST, &[own], now), None, "after a failure");
        }
        assert_eq!(redeem("", HOST, &[own], now), None);
        // The challenge, which URLs have, is no nonce.
        let code = issue();
        assert_eq!(
            redeem(&code, HOST, &[Challenge::of(own).as_str()], now),
            None
        );
    }

    #[test]
    fn number_of_codes_is_limited() {
        let codes = Codes::default();
        let now = Instant::now();
        let issue = |session, now| {
            let challenge = Challenge::of("nonce");
            let code = codes.issue(ticket(session), challenge, now);
            code.expect("random")
        };
        let first = issue(0, now).expect("room");
        for _ in 0..MAX_OF_SESSION {
            assert!(issue(0, now + Duration::from_secs(1)).is_some());
        }
        assert_eq!(codes.redeem(&first, HOST, ["nonce"].into_iter(), now), None);
        assert_eq!(codes.0.lock().len(), MAX_OF_SESSION);
        {
            let mut all = codes.0.lock();
            for number in 0..MAX_CODES {
                let mut digest = [0; 32];
                digest[..8].copy_from_slice(&number.to_le_bytes());
                let entry = Entry {
                    ticket: ticket(1),
                    challenge: Challenge::of("nonce"),
                    issued: now,
                };
                all.insert(digest, entry);
            }
        }
        assert_eq!(issue(2, now), None);
        assert!(issue(2, now + LIFETIME).is_some(), "old ones make room");
    }
}
