//! The requests of machines for a session, until a person has decided and the machine has its answer.
//!
//! ```text
//! begin ──► undecided ── decide ──► allowed ── poll ──► taken
//!               │             └───► refused ── poll ──► gone
//!               └── after ten minutes ──► expired ── poll, or a minute ──► gone
//! ```
//!
//! They are in memory: after a restart of the gateway, machines begin again.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use innkeeper_model::access::TokenId;
use innkeeper_service::{PeerQuota, PeerSlot};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::code::{Machine, UserCode};
use crate::access::key;

/// The time that a person has for the decision.
pub(super) const LIFETIME: Duration = Duration::from_secs(10 * 60);

/// The minimum time between two polls of a machine.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);

/// The time by which the interval grows with each poll that was too early (RFC 8628, section 3.5).
const INTERVAL_STEP: Duration = Duration::from_secs(5);

/// The maximum interval.
const MAX_INTERVAL: Duration = Duration::from_secs(60);

/// The time by which a poll may be early: the network delays one more than the next.
const TOLERANCE: Duration = Duration::from_secs(1);

/// The time for which an expired request is kept, so that its machine receives the reason.
const KEPT: Duration = Duration::from_secs(60);

/// The minimum time between two searches for requests that can be forgotten.
const PURGE_INTERVAL: Duration = Duration::from_secs(1);

/// The maximum number of requests.
const MAX_REQUESTS: usize = 10_000;

/// The maximum number of requests of an address.
const MAX_OF_ADDRESS: usize = 10;

/// The maximum number of wrong codes of a session within [`LIFETIME`].
const MAX_GUESSES: u32 = 20;

/// The digest of a device code, which only the machine has.
type Digest = [u8; 32];

/// All requests.
#[derive(Debug)]
pub(crate) struct Requests {
    table: Mutex<Table>,
    addresses: PeerQuota,
}

#[derive(Debug, Default)]
struct Table {
    requests: HashMap<Digest, Request>,
    /// The requests without a decision.
    codes: HashMap<UserCode, Digest>,
    /// The wrong codes of sessions, with the time of the first.
    guesses: HashMap<TokenId, (u32, Instant)>,
    purged: Option<Instant>,
}

#[derive(Debug)]
struct Request {
    code: UserCode,
    machine: Machine,
    source: IpAddr,
    begun: Instant,
    interval: Duration,
    polled: Option<Instant>,
    decision: Option<Decision>,
    _slot: PeerSlot,
}

/// The decision of a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// The machine gets a session of the person whose session in a browser this is.
    Allowed(TokenId),
    /// It gets none.
    Refused,
}

/// A new request. It has no `Debug`, so that the device code cannot get into a log.
pub(super) struct Begun {
    /// The machine's secret.
    pub(super) device_code: String,
    /// The code for people.
    pub(super) user_code: UserCode,
}

/// A request as its page shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) machine: Machine,
    /// The address that the machine began at.
    pub(super) source: IpAddr,
}

/// The answer to a poll.
#[derive(Debug)]
pub(super) enum Poll {
    /// No request has this device code.
    Unknown,
    /// The request has no decision yet.
    Undecided,
    /// It has none, and the poll was too early: the interval is longer from now on.
    TooEarly,
    /// It had no decision in time, and is gone.
    Expired,
    /// The person refused. The request is gone.
    Refused,
    /// The person allowed it. The request is taken.
    Allowed(Taken),
}

/// An allowed request whose machine gets its session now.
#[derive(Debug)]
pub(super) struct Taken {
    /// The session of the person who allowed it.
    pub(super) session: TokenId,
    digest: Digest,
    request: Request,
}

impl Taken {
    pub(super) fn machine(&self) -> &str {
        self.request.machine.as_str()
    }
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            table: Mutex::default(),
            addresses: PeerQuota::new(MAX_OF_ADDRESS),
        }
    }
}

impl Requests {
    /// Begins a request. `None` while too many are there, of this address or of all.
    ///
    /// # Errors
    /// When the kernel returns no random bytes.
    pub(super) fn begin(
        &self,
        machine: Machine,
        source: IpAddr,
        now: Instant,
    ) -> io::Result<Option<Begun>> {
        let device_code = URL_SAFE_NO_PAD.encode(key::random()?);
        let mut table = self.table.lock();
        table.purge(now);
        let Some(slot) = self.addresses.acquire(source) else {
            return Ok(None);
        };
        if table.requests.len() >= MAX_REQUESTS {
            return Ok(None);
        }
        let mut code = UserCode::new()?;
        while table.codes.contains_key(&code) {
            code = UserCode::new()?;
        }
        let digest = digest(&device_code);
        let request = Request {
            code,
            machine,
            source,
            begun: now,
            interval: INTERVAL,
            polled: None,
            decision: None,
            _slot: slot,
        };
        table.codes.insert(code, digest);
        table.requests.insert(digest, request);
        Ok(Some(Begun {
            device_code,
            user_code: code,
        }))
    }

    /// Returns the answer for a machine. A decision is returned once.
    pub(super) fn poll(&self, device_code: &str, now: Instant) -> Poll {
        let digest = digest(device_code);
        let mut table = self.table.lock();
        let Some(request) = table.requests.get_mut(&digest) else {
            return Poll::Unknown;
        };
        let is_expired = request.is_expired(now);
        match request.decision {
            None if !is_expired => return request.poll(now),
            _ => {}
        }
        let Some(request) = table.remove(&digest) else {
            return Poll::Unknown;
        };
        match request.decision {
            _ if is_expired => Poll::Expired,
            Some(Decision::Allowed(session)) => Poll::Allowed(Taken {
                session,
                digest,
                request,
            }),
            Some(Decision::Refused) | None => Poll::Refused,
        }
    }

    /// Returns a taken request whose machine did not get a session: its next poll is answered in the same way.
    pub(super) fn give_back(&self, taken: Taken) {
        let Taken {
            digest, request, ..
        } = taken;
        self.table.lock().requests.insert(digest, request);
    }

    /// Returns the request with a code, if it has no decision yet.
    pub(super) fn find(&self, code: UserCode, now: Instant) -> Option<Shown> {
        let mut table = self.table.lock();
        let request = table.undecided(code, now)?;
        Some(request.shown())
    }

    /// Records the decision about a request, and returns the request. `None` if none has this code, or it has a decision.
    pub(super) fn decide(&self, code: UserCode, decision: Decision, now: Instant) -> Option<Shown> {
        let mut table = self.table.lock();
        let request = table.undecided(code, now)?;
        request.decision = Some(decision);
        let shown = request.shown();
        table.codes.remove(&code);
        Some(shown)
    }

    /// Reports whether a session may try another code.
    pub(super) fn may_guess(&self, session: TokenId, now: Instant) -> bool {
        let table = self.table.lock();
        let guesses = table.guesses.get(&session);
        guesses.is_none_or(|(count, since)| *count < MAX_GUESSES || is_over(*since, now))
    }

    /// Counts a wrong code of a session.
    pub(super) fn count_guess(&self, session: TokenId, now: Instant) {
        let mut table = self.table.lock();
        table.guesses.retain(|_, (_, since)| !is_over(*since, now));
        let (count, _) = table.guesses.entry(session).or_insert((0, now));
        *count = count.saturating_add(1);
    }
}

impl Request {
    fn is_expired(&self, now: Instant) -> bool {
        is_over(self.begun, now)
    }

    /// Counts a poll without a decision.
    fn poll(&mut self, now: Instant) -> Poll {
        let is_early = |last| now.saturating_duration_since(last) + TOLERANCE < self.interval;
        let was_early = self.polled.is_some_and(is_early);
        self.polled = Some(now);
        if !was_early {
            return Poll::Undecided;
        }
        self.interval = (self.interval + INTERVAL_STEP).min(MAX_INTERVAL);
        Poll::TooEarly
    }

    fn shown(&self) -> Shown {
        Shown {
            machine: self.machine.clone(),
            source: self.source,
        }
    }
}

impl Table {
    fn undecided(&mut self, code: UserCode, now: Instant) -> Option<&mut Request> {
        let digest = self.codes.get(&code)?;
        let request = self.requests.get_mut(digest)?;
        (!request.is_expired(now)).then_some(request)
    }

    fn remove(&mut self, digest: &Digest) -> Option<Request> {
        let request = self.requests.remove(digest)?;
        // With a decision, the code may be that of another request.
        if request.decision.is_none() {
            self.codes.remove(&request.code);
        }
        Some(request)
    }

    /// Forgets requests whose machines do not poll any more.
    fn purge(&mut self, now: Instant) {
        let is_early = |purged| now.saturating_duration_since(purged) < PURGE_INTERVAL;
        if self.purged.is_some_and(is_early) {
            return;
        }
        self.purged = Some(now);
        let is_kept =
            |request: &Request| now.saturating_duration_since(request.begun) < LIFETIME + KEPT;
        self.requests.retain(|_, request| is_kept(request));
        let requests = &self.requests;
        self.codes.retain(|_, digest| requests.contains_key(digest));
    }
}

/// Reports whether the lifetime of something has passed that began at a time.
fn is_over(begun: Instant, now: Instant) -> bool {
    now.saturating_duration_since(begun) >= LIFETIME
}

fn digest(device_code: &str) -> Digest {
    Sha256::digest(device_code).into()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const SESSION: TokenId = TokenId(7);

    fn machine() -> Machine {
        Machine::parse("laptop").expect("a name")
    }

    fn address(number: usize) -> IpAddr {
        let bits = u32::try_from(number).expect("small");
        IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + bits))
    }

    fn begin(requests: &Requests, source: IpAddr, now: Instant) -> Option<Begun> {
        requests
            .begin(machine(), source, now)
            .expect("random bytes")
    }

    fn begun(requests: &Requests, now: Instant) -> Begun {
        begin(requests, address(1), now).expect("there is room")
    }

    #[test]
    fn decision_is_for_one_request_and_returned_once() {
        let requests = Requests::default();
        let now = Instant::now();
        let (one, two) = (begun(&requests, now), begun(&requests, now));
        let shown = requests.find(one.user_code, now).expect("undecided");
        assert_eq!((shown.machine, shown.source), (machine(), address(1)));
        let allowed = Decision::Allowed(SESSION);
        assert!(requests.decide(one.user_code, allowed, now).is_some());
        assert_eq!(requests.find(one.user_code, now), None);
        let again = requests.decide(one.user_code, Decision::Refused, now);
        assert_eq!(again, None, "there is one decision");
        assert!(matches!(
            requests.poll(&two.device_code, now),
            Poll::Undecided
        ));
        let poll = requests.poll(&one.device_code, now);
        assert!(matches!(&poll, Poll::Allowed(taken) if taken.session == SESSION));
        assert!(matches!(
            requests.poll(&one.device_code, now),
            Poll::Unknown
        ));
        // A machine that got no session polls again.
        let Poll::Allowed(taken) = poll else {
            panic!("allowed");
        };
        requests.give_back(taken);
        assert!(matches!(
            requests.poll(&one.device_code, now),
            Poll::Allowed(_)
        ));

        assert!(
            requests
                .decide(two.user_code, Decision::Refused, now)
                .is_some()
        );
        assert!(matches!(
            requests.poll(&two.device_code, now),
            Poll::Refused
        ));
        assert!(matches!(
            requests.poll(&two.device_code, now),
            Poll::Unknown
        ));
        assert!(matches!(requests.poll("", now), Poll::Unknown));
        assert!(requests.table.lock().codes.is_empty());
    }

    #[test]
    fn request_expires_with_or_without_a_decision() {
        for decision in [None, Some(Decision::Allowed(SESSION))] {
            let requests = Requests::default();
            let start = Instant::now();
            let one = begun(&requests, start);
            let end = start + LIFETIME;
            let last = end - Duration::from_millis(1);
            assert!(requests.find(one.user_code, last).is_some());
            if let Some(decision) = decision {
                assert!(requests.decide(one.user_code, decision, last).is_some());
            }
            assert_eq!(requests.find(one.user_code, end), None);
            assert_eq!(requests.decide(one.user_code, Decision::Refused, end), None);
            assert!(matches!(
                requests.poll(&one.device_code, end),
                Poll::Expired
            ));
            assert!(matches!(
                requests.poll(&one.device_code, end),
                Poll::Unknown
            ));
        }
    }

    #[test]
    fn early_poll_makes_the_interval_longer() {
        let requests = Requests::default();
        let mut now = Instant::now();
        let one = begun(&requests, now);
        let mut poll = |wait| {
            now += wait;
            requests.poll(&one.device_code, now)
        };
        assert!(matches!(poll(Duration::ZERO), Poll::Undecided));
        assert!(matches!(poll(INTERVAL), Poll::Undecided));
        assert!(matches!(poll(INTERVAL - TOLERANCE), Poll::Undecided));
        assert!(matches!(poll(Duration::from_secs(1)), Poll::TooEarly));
        assert!(matches!(poll(INTERVAL), Poll::TooEarly));
        assert!(matches!(
            poll(INTERVAL + INTERVAL_STEP * 2),
            Poll::Undecided
        ));
        for _ in 0..100 {
            assert!(matches!(poll(Duration::ZERO), Poll::TooEarly));
        }
        assert!(matches!(poll(MAX_INTERVAL), Poll::Undecided));
    }

    #[test]
    fn number_of_requests_is_limited() {
        let requests = Requests::default();
        let start = Instant::now();
        let first = begun(&requests, start);
        for _ in 1..MAX_OF_ADDRESS {
            assert!(begin(&requests, address(1), start).is_some());
        }
        assert!(begin(&requests, address(1), start).is_none());
        // One that has ended makes room.
        requests.decide(first.user_code, Decision::Refused, start);
        assert!(begin(&requests, address(1), start).is_none());
        assert!(matches!(
            requests.poll(&first.device_code, start),
            Poll::Refused
        ));
        assert!(begin(&requests, address(1), start).is_some());
        for number in MAX_OF_ADDRESS..MAX_REQUESTS {
            assert!(begin(&requests, address(number), start).is_some());
        }
        assert!(begin(&requests, address(MAX_REQUESTS), start).is_none());
        let later = start + LIFETIME + KEPT;
        assert!(
            begin(&requests, address(1), later).is_some(),
            "old ones are gone"
        );
        let table = requests.table.lock();
        assert_eq!((table.requests.len(), table.codes.len()), (1, 1));
    }

    #[test]
    fn guesses_of_a_session_are_limited() {
        let requests = Requests::default();
        let start = Instant::now();
        for _ in 0..MAX_GUESSES {
            assert!(requests.may_guess(SESSION, start));
            requests.count_guess(SESSION, start);
        }
        assert!(!requests.may_guess(SESSION, start));
        assert!(requests.may_guess(TokenId(8), start));
        let later = start + LIFETIME;
        assert!(requests.may_guess(SESSION, later));
        requests.count_guess(TokenId(8), later);
        assert_eq!(requests.table.lock().guesses.len(), 1);
    }
}
