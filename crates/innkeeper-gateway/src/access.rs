//! Access to previews that are not public: the decision about each request to them, which Caddy requests before anything else.
//!
//! ```text
//! browser ── Caddy ──► decide: token, pass, share link ──► 204: Caddy passes the request on
//!                          │                               401, 403, 503: the visitor gets this response
//!                          └─► 302 to the gateway's host
//!                                   entrance: login, innkeeperd's decision, one-time code
//!                                   └─► 302 to the preview's host, which exchanges the code for a pass
//! ```
//!
//! innkeeperd takes no part in a request with a pass, except that a person's right is decided again after a minute. It
//! fails closed: a request whose rights are not known is refused.

mod codes;
mod cookies;
mod decide;
mod entrance;
mod grants;
mod jwt;
pub mod key;
mod page;
mod pass;
mod relay;
mod respond;
mod rights;
mod visit;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{any, get};
use innkeeper_model::GuestName;
use innkeeper_model::access::{CHECK_PATH, TokenId};
use innkeeper_model::preview::Visibility;
use innkeeper_service::server::client_address;
use ipnet::IpNet;
use tokio::sync::watch;

use crate::config::Config;
use crate::credentials::Credentials;
use crate::forward::Daemon;
use crate::metrics::Metrics;
use codes::Codes;
use decide::decide;
use grants::Grants;
pub(crate) use jwt::Key;
use key::Keys;
use relay::Relay;
use respond::respond;
use rights::{Rights, Undecided};
use visit::Visit;

/// The path on the gateway's host to which browsers without a pass are sent.
const ENTRANCE: &str = "/access";

/// The path on the gateway's host at which people log in.
const LOGIN: &str = "/login";

/// The path on a preview's host that exchanges a one-time code for a pass.
const EXCHANGE: &str = "/.innkeeper-access";

/// State of the decisions.
pub(crate) struct Access {
    key: Key,
    sandbox: watch::Receiver<Option<Key>>,
    grants: Grants,
    credentials: Arc<Credentials>,
    rights: Rights,
    codes: Codes,
    relay: Relay,
    /// The gateway's host. `None` means that browsers are not sent there.
    host: Option<String>,
    /// The servers in front of Caddy.
    proxies: Vec<IpNet>,
    metrics: Metrics,
}

impl Access {
    /// Returns the state, with the sender of later keys of `sandbox_preview`.
    pub(crate) fn new(
        config: &Config,
        keys: Keys,
        credentials: Arc<Credentials>,
        metrics: Metrics,
    ) -> (Self, watch::Sender<Option<Key>>) {
        let gateway = &config.gateway;
        let daemon = Daemon::new(gateway.daemon_socket(&config.runtime_dir));
        let domain = Some(config.previews.domain.as_str()).filter(|domain| !domain.is_empty());
        let (sender, sandbox) = watch::channel(keys.sandbox);
        let access = Self {
            key: keys.own,
            sandbox,
            grants: Grants::new(gateway.published_access(&config.runtime_dir)),
            credentials,
            rights: Rights::new(Arc::new(daemon)),
            codes: Codes::default(),
            relay: Relay::new(gateway.relay_host(domain), gateway.relay_providers.clone()),
            host: gateway.host(domain),
            proxies: config.caddy.trusted_proxies.clone(),
            metrics,
        };
        (access, sender)
    }

    fn sandbox_key(&self) -> Option<Key> {
        self.sandbox.borrow().clone()
    }

    /// Reports whether the session of a person is valid, and the person may see a preview.
    async fn may_see(
        &self,
        session: TokenId,
        slug: &GuestName,
        visibility: Visibility,
        source: IpAddr,
    ) -> Result<bool, Undecided> {
        Ok(self.credentials.is_current(session)?
            && self
                .rights
                .may_see(session, slug, visibility, source)
                .await?)
    }
}

/// Returns the service of the socket for Caddy's requests.
pub(crate) fn router(access: Arc<Access>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok"))
        .route(CHECK_PATH, any(check))
        .with_state(access)
}

/// Returns the part of the gateway's own host.
pub(crate) fn entrance(access: Arc<Access>) -> Router {
    Router::new()
        .route(ENTRANCE, get(entrance::enter))
        .route(relay::CALLBACK, get(entrance::relay))
        .with_state(access)
}

async fn check(State(access): State<Arc<Access>>, headers: HeaderMap) -> Response {
    let source = client_address(&headers, &access.proxies);
    let source = source.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let verdict = decide(&access, &headers, source).await;
    access.metrics.count_visit(verdict.metric());
    let is_page = Visit::parse(&headers).is_some_and(|visit| visit.is_navigation);
    respond(verdict, is_page)
}
