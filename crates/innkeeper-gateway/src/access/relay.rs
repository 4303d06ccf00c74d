//! OAuth inside previews: one callback that is registered with the provider, for the hosts of all previews.
//!
//! ```text
//! app ──► /.innkeeper-relay of its own host    state ──► ours ──► the provider's page
//!                                                                     │
//! app ◄── its own callback, with its state ◄── auth.<domain>/relay ◄──┘ code, our state
//! ```
//!
//! A state of ours is for one host, is valid for ten minutes and used once. The code is of no use without the verifier of the app
//! (PKCE), which is required. A preview of a fork gets no state: its code may be a stranger's.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use innkeeper_model::GuestName;
use innkeeper_model::preview::RepoName;
use parking_lot::Mutex;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::codes;
use super::grants::Table;
use super::visit::{Site, Target};

/// The path on a preview's host that leads to the provider.
pub(crate) const START: &str = "/.innkeeper-relay";

/// The path of the callback on its own host.
pub(crate) const CALLBACK: &str = "/relay";

/// The parameter with the URL of the provider's page.
const AUTHORIZE: &str = "innkeeper_authorize";

/// The parameter with the path of the app's own callback.
const RETURN: &str = "innkeeper_callback";

/// The time for which a state is valid.
const LIFETIME: Duration = Duration::from_secs(600);

/// The maximum number of states that wait.
const MAX_STATES: usize = 10_000;

/// The maximum number of states of one preview that wait.
const MAX_OF_PREVIEW: usize = 256;

/// The relay of a host.
#[derive(Debug)]
pub(crate) struct Relay {
    /// The host of the callback. `None` without a domain.
    host: Option<String>,
    /// The URLs of the providers' pages.
    providers: Vec<String>,
    states: Mutex<HashMap<String, State>>,
}

#[derive(Debug)]
struct State {
    slug: GuestName,
    repo: RepoName,
    host: String,
    /// The path of the app's own callback.
    path: Target,
    /// The app's own state, as it was sent.
    own: Option<String>,
    issued: Instant,
}

/// The reason for which a login is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RelayProblem {
    /// The provider is not among those of the configuration.
    #[error("`innkeeper_authorize` is none of the URLs of gateway.relay_providers")]
    Provider,
    /// The path of the app's callback is missing.
    #[error("`innkeeper_callback` is not a path, such as /auth/callback")]
    Callback,
    /// PKCE is missing.
    #[error("the request has no `code_challenge` with `code_challenge_method=S256`")]
    Challenge,
    /// Another flow than that of the authorization code.
    #[error("`response_type` is not `code`, or `response_mode` is not `query`")]
    Flow,
    /// A parameter occurs twice.
    #[error("a parameter occurs twice")]
    Twice,
    /// The preview's code comes from a fork.
    #[error("the preview is that of a fork, which gets no logins of this host")]
    Fork,
    /// Too many logins of the preview have begun and not ended.
    #[error("too many logins have begun and not ended")]
    TooMany,
}

/// The preview that begins a login.
pub(crate) struct Origin<'a> {
    pub(crate) slug: &'a GuestName,
    pub(crate) repo: &'a RepoName,
    pub(crate) is_fork: bool,
    pub(crate) site: &'a Site,
}

impl Relay {
    pub(crate) fn new(host: Option<String>, providers: Vec<String>) -> Self {
        Self {
            host,
            providers,
            states: Mutex::default(),
        }
    }

    /// Begins a login: returns the URL of the provider's page.
    ///
    /// # Errors
    /// [`RelayProblem`].
    pub(crate) fn begin(
        &self,
        origin: &Origin<'_>,
        target: &Target,
        now: Instant,
    ) -> Result<String, RelayProblem> {
        if origin.is_fork {
            return Err(RelayProblem::Fork);
        }
        let parameter = |name| {
            let mut values = target.values(name);
            let value = values.next();
            match values.next() {
                Some(_) => Err(RelayProblem::Twice),
                None => Ok(value),
            }
        };
        let provider = parameter(AUTHORIZE)?;
        let provider = provider.filter(|url| self.providers.contains(url));
        let (provider, host) = provider
            .zip(self.host.as_ref())
            .ok_or(RelayProblem::Provider)?;
        let path = parameter(RETURN)?.and_then(|path| Target::parse(&path));
        let path = path.filter(|path| path.as_str() == path.path());
        let path = path.ok_or(RelayProblem::Callback)?;
        let is_code = parameter("response_type")?.as_deref() == Some("code");
        let mode = parameter("response_mode")?;
        if !is_code || mode.is_some_and(|mode| mode != "query") {
            return Err(RelayProblem::Flow);
        }
        let challenge = parameter("code_challenge")?.unwrap_or_default();
        let method = parameter("code_challenge_method")?;
        if challenge.len() < 43 || method.as_deref() != Some("S256") {
            return Err(RelayProblem::Challenge);
        }
        let own = parameter("state")?;
        let rest = target.without(&[AUTHORIZE, RETURN, "state", "redirect_uri"]);
        let state = State {
            slug: origin.slug.clone(),
            repo: origin.repo.clone(),
            host: origin.site.host.clone(),
            path,
            own,
            issued: now,
        };
        let state = self.remember(state, now)?;
        let callback = origin.site.url_of(host, CALLBACK);
        let mut query = vec![
            format!("redirect_uri={}", encode(&callback)),
            format!("state={state}"),
        ];
        query.extend(rest.query().map(str::to_owned));
        let separator = if provider.contains('?') { '&' } else { '?' };
        Ok(format!("{provider}{separator}{}", query.join("&")))
    }

    fn remember(&self, state: State, now: Instant) -> Result<String, RelayProblem> {
        let text = random().map_err(|_| RelayProblem::TooMany)?;
        let mut states = self.states.lock();
        let is_valid = |issued: Instant| now.saturating_duration_since(issued) < LIFETIME;
        states.retain(|_, state| is_valid(state.issued));
        let of_preview = states.values().filter(|other| other.slug == state.slug);
        if of_preview.count() >= MAX_OF_PREVIEW || states.len() >= MAX_STATES {
            return Err(RelayProblem::TooMany);
        }
        states.insert(text.clone(), state);
        Ok(text)
    }

    /// Ends a login: returns the URL of the app's own callback on the host that began it. `None` for a state that is unknown, used
    /// or old, and if the host has another preview now, or one of a fork.
    pub(crate) fn end(
        &self,
        site: &Site,
        target: &Target,
        table: &Table,
        now: Instant,
    ) -> Option<String> {
        let mut values = target.values("state");
        let state = values.next().filter(|_| values.next().is_none())?;
        let state = self.states.lock().remove(&state)?;
        let preview = table.preview(&state.slug, &state.host)?;
        let is_valid = now.saturating_duration_since(state.issued) < LIFETIME
            && preview.repo == state.repo
            && !preview.fork;
        if !is_valid {
            return None;
        }
        let own = state.own.map(|own| format!("state={}", encode(&own)));
        let rest = target.without(&["state"]);
        let query: Vec<_> = own
            .into_iter()
            .chain(rest.query().map(str::to_owned))
            .collect();
        let path = format!("{}?{}", state.path.as_str(), query.join("&"));
        Some(site.url_of(&state.host, &path))
    }
}

fn random() -> io::Result<String> {
    codes::nonce()
}

fn encode(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
}
