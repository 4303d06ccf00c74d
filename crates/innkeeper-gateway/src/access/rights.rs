//! The rights of people to see previews: innkeeperd decides, and its decision is remembered for a minute.
//!
//! ```text
//!  age of the decision   0 ─────── 30 s ─────────── 60 s ─────►
//!                        applies   applies, while   a new one is
//!                                  a new one is     required
//!                                  requested
//! ```

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use innkeeper_model::GuestName;
use innkeeper_model::access::{Actor, TokenId};
use innkeeper_model::preview::Visibility;
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::forward::Daemon;
use crate::published::Unknown;

/// The age from which a decision is requested again.
const REFRESH_AGE: Duration = Duration::from_secs(30);

/// The age from which a decision no longer applies.
const MAX_AGE: Duration = Duration::from_secs(60);

/// Timeout for innkeeperd's decision: it may have to query GitHub.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum number of decisions that are remembered.
const MAX_DECISIONS: usize = 10_000;

/// The decisions of innkeeperd. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Rights {
    daemon: Arc<Daemon>,
    decisions: Arc<Mutex<HashMap<Key, Decision>>>,
}

/// A person's session, and a preview with its visibility: a change of that requires another decision.
type Key = (TokenId, GuestName, Visibility);

#[derive(Clone, Debug, Default)]
struct Decision {
    made: Option<(Instant, bool)>,
    /// The last time at which innkeeperd did not decide.
    failed: Option<Instant>,
    /// Held while one is requested.
    request: Arc<tokio::sync::Mutex<()>>,
}

/// A right that is not known: innkeeperd does not respond, and its last decision is too old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Undecided;

impl From<Unknown> for Undecided {
    fn from(_: Unknown) -> Self {
        Self
    }
}

impl Rights {
    pub(crate) fn new(daemon: Arc<Daemon>) -> Self {
        Self {
            daemon,
            decisions: Arc::default(),
        }
    }

    /// Reports whether a person may see a preview. `source` is the visitor's address, for the audit log.
    ///
    /// # Errors
    /// [`Undecided`]. No request may pass then.
    pub(crate) async fn may_see(
        &self,
        session: TokenId,
        slug: &GuestName,
        visibility: Visibility,
        source: IpAddr,
    ) -> Result<bool, Undecided> {
        let key = (session, slug.clone(), visibility);
        let decision = self.decision(&key, Instant::now());
        let age = decision.made.map(|(at, may)| (at.elapsed(), may));
        match age {
            Some((age, may)) if age < REFRESH_AGE => Ok(may),
            Some((age, may)) if age < MAX_AGE => {
                // Only one request at a time.
                if let Ok(held) = decision.request.try_lock_owned() {
                    let rights = self.clone();
                    tokio::spawn(async move {
                        rights.request(&key, source).await;
                        drop(held);
                    });
                }
                Ok(may)
            }
            _ => self.decide(&key, decision, source).await,
        }
    }

    /// Requests a decision, or waits for one that is being requested. All who wait share its failure: while innkeeperd hangs,
    /// visitors do not queue for one timeout after the other.
    async fn decide(
        &self,
        key: &Key,
        decision: Decision,
        source: IpAddr,
    ) -> Result<bool, Undecided> {
        let begun = Instant::now();
        let _held = decision.request.lock().await;
        let latest = self.decision(key, begun);
        if latest.failed.is_some_and(|at| begun <= at) {
            return Err(Undecided);
        }
        if let Some((at, may)) = latest.made
            && at.elapsed() < MAX_AGE
        {
            return Ok(may);
        }
        self.request(key, source).await.ok_or(Undecided)
    }

    /// Returns the decision that is remembered, or a new one that has not been made.
    fn decision(&self, key: &Key, now: Instant) -> Decision {
        let mut decisions = self.decisions.lock();
        if !decisions.contains_key(key) && decisions.len() >= MAX_DECISIONS {
            let is_recent = |at: Instant| now.saturating_duration_since(at) < MAX_AGE;
            decisions.retain(|_, decision| decision.made.is_some_and(|(at, _)| is_recent(at)));
            if decisions.len() >= MAX_DECISIONS {
                decisions.clear();
            }
        }
        decisions.entry(key.clone()).or_default().clone()
    }

    /// Requests the preview as the person. Remembers and returns the decision, if there is one.
    async fn request(&self, key: &Key, source: IpAddr) -> Option<bool> {
        let (session, slug, _) = key;
        let at = Instant::now();
        let path = format!("/v1/previews/{slug}/visibility");
        let actor = Actor::Token(*session);
        let response = timeout(TIMEOUT, self.daemon.get_as(&path, &actor, source)).await;
        let status = response
            .ok()
            .and_then(Result::ok)
            .map(|response| response.status());
        let may = match status {
            Some(StatusCode::OK) => Some(true),
            Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) => {
                Some(false)
            }
            _ => None,
        };
        let mut decisions = self.decisions.lock();
        let decision = decisions.entry(key.clone()).or_default();
        match may {
            Some(may) => decision.made = Some((at, may)),
            None => decision.failed = Some(Instant::now()),
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use axum::Router;
    use axum::routing::get;
    use tokio::net::UnixListener;

    use super::*;

    const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// Serves one status for all previews, until the result is aborted.
    fn serve(socket: &Path, status: StatusCode) -> tokio::task::JoinHandle<()> {
        let listener = UnixListener::bind(socket).expect("listens");
        let app = Router::new().route("/v1/previews/{slug}/visibility", get(async move || status));
        tokio::spawn(async move { axum::serve(listener, app).await.expect("serves") })
    }

    struct Fixture {
        rights: Rights,
        key: Key,
    }

    impl Fixture {
        /// Returns rights whose last decision has an age.
        fn new(socket: &Path, age: Duration, may: bool) -> Self {
            let rights = Rights::new(Arc::new(Daemon::new(socket.to_owned())));
            let slug = GuestName::parse("web").expect("a name");
            let key = (TokenId(1), slug, Visibility::Private);
            let at = Instant::now().checked_sub(age).expect("up for a minute");
            let decision = Decision {
                made: Some((at, may)),
                ..Decision::default()
            };
            rights.decisions.lock().insert(key.clone(), decision);
            Self { rights, key }
        }

        async fn may_see(&self, visibility: Visibility) -> Result<bool, Undecided> {
            let (session, slug, _) = &self.key;
            self.rights
                .may_see(*session, slug, visibility, SOURCE)
                .await
        }
    }

    #[tokio::test]
    async fn decision_applies_for_a_minute_without_the_daemon() {
        let directory = tempfile::tempdir().expect("directory");
        let socket = directory.path().join("gateway.sock");
        for may in [true, false] {
            let fresh = Fixture::new(&socket, Duration::from_secs(1), may);
            assert_eq!(fresh.may_see(Visibility::Private).await, Ok(may));
            let aging = Fixture::new(&socket, REFRESH_AGE, may);
            assert_eq!(aging.may_see(Visibility::Private).await, Ok(may));
            let old = Fixture::new(&socket, MAX_AGE, may);
            assert_eq!(old.may_see(Visibility::Private).await, Err(Undecided));
            // A change of the visibility requires another decision.
            assert_eq!(fresh.may_see(Visibility::Team).await, Err(Undecided));
        }
    }

    #[tokio::test]
    async fn later_decision_replaces_the_former_one() {
        let directory = tempfile::tempdir().expect("directory");
        let socket = directory.path().join("gateway.sock");
        let daemon = serve(&socket, StatusCode::NOT_FOUND);
        let old = Fixture::new(&socket, MAX_AGE, true);
        assert_eq!(old.may_see(Visibility::Private).await, Ok(false));
        let aging = Fixture::new(&socket, REFRESH_AGE, true);
        assert_eq!(aging.may_see(Visibility::Private).await, Ok(true));
        while aging.may_see(Visibility::Private).await == Ok(true) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(aging.may_see(Visibility::Private).await, Ok(false));
        daemon.abort();
    }

    #[tokio::test]
    async fn failure_of_the_daemon_is_no_decision() {
        let directory = tempfile::tempdir().expect("directory");
        let socket = directory.path().join("gateway.sock");
        let daemon = serve(&socket, StatusCode::INTERNAL_SERVER_ERROR);
        let old = Fixture::new(&socket, MAX_AGE, true);
        assert_eq!(old.may_see(Visibility::Private).await, Err(Undecided));
        daemon.abort();
    }

    #[tokio::test]
    async fn visitors_who_wait_share_a_failure() {
        let directory = tempfile::tempdir().expect("directory");
        let socket = directory.path().join("gateway.sock");
        let listener = UnixListener::bind(&socket).expect("listens");
        let requests = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&requests);
        let daemon = tokio::spawn(async move {
            loop {
                drop(listener.accept().await.expect("accepts"));
                *counted.lock() += 1;
            }
        });
        let old = Fixture::new(&socket, MAX_AGE, true);
        let visitors = (0..20).map(|_| old.may_see(Visibility::Private));
        let visitors = futures_util::future::join_all(visitors).await;
        assert!(visitors.iter().all(|may| *may == Err(Undecided)));
        assert_eq!(*requests.lock(), 1);
        // A later visitor requests one again.
        assert_eq!(old.may_see(Visibility::Private).await, Err(Undecided));
        assert_eq!(*requests.lock(), 2);
        daemon.abort();
    }

    #[tokio::test]
    async fn number_of_decisions_is_limited() {
        let directory = tempfile::tempdir().expect("directory");
        let fixture = Fixture::new(&directory.path().join("none"), MAX_AGE, true);
        for number in 0..=i64::try_from(MAX_DECISIONS).expect("small") {
            let (_, slug, visibility) = fixture.key.clone();
            fixture
                .rights
                .decision(&(TokenId(number), slug, visibility), Instant::now());
        }
        assert!(fixture.rights.decisions.lock().len() <= MAX_DECISIONS);
    }
}
