//! From a request to its response.
//!
//! The steps are ordered by trust: innkeeperd receives nothing of a request without a valid token, and no body is read before
//! its token was verified, except to discard it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::{Request, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use innkeeper_service::server::Link;
use innkeeper_service::{LogThrottle, PeerQuota, PeerSlot};
use ipnet::IpNet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tracing::warn;

use crate::config::Config;
use crate::credentials::{Credentials, Denial};
use crate::forward::Daemon;
use crate::headers;
use crate::login::Requests;
use crate::metrics::{Metrics, Outcome};
use crate::ready::Ready;
use crate::refuse::Refusal;
use crate::upload::{self, Pace};
use crate::{browser, session};

/// The maximum number of requests and tunnels that are passed on at a time: innkeeperd accepts 256 connections from the gateway,
/// and its own state must be readable meanwhile.
const MAX_FORWARDS: usize = 240;

/// The share of all connections on which bodies without a valid token of one address are read to their end.
const DISCARD_SHARE: usize = 16;

/// State that all requests share.
pub(crate) struct Context {
    pub(crate) credentials: Arc<Credentials>,
    metrics: Metrics,
    pub(crate) daemon: Daemon,
    /// The machines that wait for a person's decision.
    pub(crate) devices: Requests,
    ready: Ready,
    /// The requests that are passed on: those of each address, half of all at most, and all together.
    addresses: PeerQuota,
    forwards: Arc<Semaphore>,
    discards: PeerQuota,
    /// The servers in front of Caddy.
    pub(crate) proxies: Vec<IpNet>,
    pace: Pace,
    denials: LogThrottle,
}

impl Context {
    pub(crate) fn new(config: &Config, credentials: Arc<Credentials>, metrics: Metrics) -> Self {
        let gateway = &config.gateway;
        let forwards = gateway.max_connections.min(MAX_FORWARDS);
        Self {
            credentials,
            metrics,
            daemon: Daemon::new(gateway.daemon_socket(&config.runtime_dir)),
            devices: Requests::default(),
            ready: Ready::default(),
            addresses: PeerQuota::new(forwards / 2),
            forwards: Arc::new(Semaphore::new(forwards)),
            discards: PeerQuota::new(gateway.max_connections / DISCARD_SHARE),
            proxies: config.caddy.trusted_proxies.clone(),
            pace: Pace {
                piece: config.timeout(),
                stall: config.stall_timeout(),
            },
            denials: LogThrottle::default(),
        }
    }

    /// Counts a refusal, and returns its response.
    fn refuse(&self, refusal: Refusal) -> Response {
        self.metrics.count(outcome(refusal));
        refusal.into_response()
    }

    /// Counts a request without a valid session, and returns its refusal.
    pub(crate) fn deny(&self, source: IpAddr) -> Refusal {
        self.log_denial();
        let denial = self.credentials.deny(source, Instant::now());
        let refusal = refusal_of(denial);
        self.metrics.count(outcome(refusal));
        refusal
    }

    /// Occupies a slot of a request to innkeeperd. `None` while the client's address, or all together, occupy all.
    pub(crate) fn slot(&self, source: IpAddr) -> Option<(PeerSlot, OwnedSemaphorePermit)> {
        let address = self.addresses.acquire(source);
        let total = Arc::clone(&self.forwards).try_acquire_owned().ok();
        address.zip(total)
    }

    /// Reads a form of at most `limit` bytes, within the time for a piece of a body. The error is the response to its client.
    pub(crate) async fn read_form(&self, body: Body, limit: usize) -> Result<Bytes, Response> {
        match timeout(self.pace.piece, to_bytes(body, limit)).await {
            Ok(Ok(form)) => Ok(form),
            Ok(Err(_)) => Err(StatusCode::PAYLOAD_TOO_LARGE.into_response()),
            Err(_) => Err(self.refuse(Refusal::TooSlow)),
        }
    }

    /// Logs a request without a valid token, throttled.
    fn log_denial(&self) {
        if let Some(count) = self.denials.count(Instant::now()) {
            warn!(count, "rejected requests without a valid token");
        }
    }
}

/// Returns the counter of a refusal.
fn outcome(refusal: Refusal) -> Outcome {
    match refusal {
        Refusal::Unauthorized | Refusal::NoPass => Outcome::Unauthorized,
        Refusal::TooManyFailures(_) => Outcome::Limited,
        Refusal::TooManyRequests => Outcome::Busy,
        Refusal::NotFound => Outcome::NotFound,
        Refusal::CrossSite => Outcome::Unauthorized,
        Refusal::TooSlow => Outcome::Slow,
        Refusal::Unavailable => Outcome::Unavailable,
    }
}

fn refusal_of(denial: Denial) -> Refusal {
    match denial {
        Denial::Unauthorized => Refusal::Unauthorized,
        Denial::TooMany(wait) => Refusal::TooManyFailures(wait),
        Denial::Unknown => Refusal::Unavailable,
    }
}

/// Returns the service for all requests.
pub(crate) fn router(context: Arc<Context>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(respond)
        .layer(map_response(protected))
        .with_state(context)
}

/// Adds the headers of every response.
pub(crate) async fn protected(mut response: Response) -> Response {
    headers::protect(response.headers_mut());
    response
}

/// The program responds.
async fn healthz(State(context): State<Arc<Context>>) -> &'static str {
    context.metrics.count(Outcome::Health);
    "ok"
}

/// The host works.
async fn readyz(State(context): State<Arc<Context>>) -> (StatusCode, String) {
    context.metrics.count(Outcome::Health);
    let mut failing = context.ready.failing(&context.daemon).await;
    if context.credentials.tokens().is_none() {
        failing.push("tokens".to_owned());
    }
    match failing.as_slice() {
        [] => (StatusCode::OK, "ready".to_owned()),
        parts => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {}", parts.join(", ")),
        ),
    }
}

pub(crate) async fn respond(
    State(context): State<Arc<Context>>,
    Extension(link): Extension<Link>,
    request: Request<Body>,
) -> Response {
    let source = context.source(request.headers());
    let result = match admit(&context, request, source) {
        Ok(admitted) => {
            let held = (admitted.slot, context.metrics.begin());
            let Admitted {
                request, protocol, ..
            } = admitted;
            let daemon = &context.daemon;
            daemon
                .forward(request, protocol, &link, context.pace, held)
                .await
        }
        Err((refusal, body)) => {
            // Beyond its share, a body that is not read closes the connection, and its sender may miss the response.
            if let Some(slot) = context.discards.acquire(source) {
                upload::discard(body, context.pace, slot);
            }
            Err(refusal)
        }
    };
    match result {
        Ok(response) => {
            context.metrics.count(Outcome::Forwarded);
            response
        }
        Err(refusal) => context.refuse(refusal),
    }
}

/// A request for innkeeperd.
struct Admitted {
    request: Request<Body>,
    protocol: Option<axum::http::HeaderValue>,
    slot: (PeerSlot, OwnedSemaphorePermit),
}

/// Returns a request as innkeeperd receives it, or the reason for which it does not, with the body.
fn admit(
    context: &Context,
    request: Request<Body>,
    source: IpAddr,
) -> Result<Admitted, (Refusal, Body)> {
    let (mut head, body) = request.into_parts();
    let Some(uri) = headers::api_uri(&head.uri) else {
        return Err((Refusal::NotFound, body));
    };
    if !head.headers.contains_key(header::AUTHORIZATION)
        && let Some(session) = session::of(&head.headers)
        && !browser::is_own(&head.method, &head.headers, &session)
    {
        return Err((Refusal::CrossSite, body));
    }
    let actor = match context.credentials.authenticate(&head.headers, source) {
        Ok(actor) => actor,
        Err(denial) => {
            let refusal = refusal_of(denial);
            if denial != Denial::Unknown {
                context.log_denial();
            }
            return Err((refusal, body));
        }
    };
    let Some(slot) = context.slot(source) else {
        return Err((Refusal::TooManyRequests, body));
    };
    let protocol = headers::protocol(&head.headers);
    head.uri = uri;
    head.headers = headers::of_request(head.headers, &actor, source);
    Ok(Admitted {
        request: Request::from_parts(head, body),
        protocol,
        slot,
    })
}
