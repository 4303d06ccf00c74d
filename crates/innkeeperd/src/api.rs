//! The API on the Unix sockets. `innkeeper_model::api` lists the calls.

mod access;
mod agent;
mod audit;
mod caller;
mod calls;
mod connect;
mod deliveries;
mod events;
mod exec;
mod grants;
mod guests;
mod host;
mod listener;
mod openapi;
mod previews;
mod private;
mod quotas;
mod rejection;
mod response;
mod rest;
mod retained;
mod secrets;
mod sessions;
mod snapshots;
mod tokens;
mod visible;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::middleware::map_response;
use axum::{Extension, Router};
use innkeeper_engine::Engine;
use innkeeper_model::api::ConfigReport;
use innkeeper_model::{Code, Failure};
use innkeeper_preview::Previews;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::access::{People, Tokens};
use crate::api_error::ApiError;
use crate::audit::AuditLog;
use crate::backup::Backups;
use crate::gateway_check::GatewayCheck;
use crate::intake::Notifier;
use crate::prefetch::Prefetches;
use crate::quotas::Quotas;

use calls::Call;
use openapi::Document;

pub(crate) use caller::Caller;
pub(crate) use listener::{Peer, bind};

/// State shared by all calls.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) engine: Engine,
    /// The previews. `None` on a host without a domain for them.
    pub(crate) previews: Option<Previews>,
    /// Builds of closures before somebody requests them.
    pub(crate) prefetches: Prefetches,
    /// Backups of guests.
    pub(crate) backups: Backups,
    /// The tokens of other machines.
    pub(crate) tokens: Tokens,
    /// Logins of people.
    pub(crate) people: People,
    /// The audit log.
    pub(crate) audit: AuditLog,
    /// Limits of the agents of one actor.
    pub(crate) quotas: Quotas,
    /// Notified when a delivery is replayed.
    pub(crate) notifier: Notifier,
    /// The check of the gateway. `None` on a host without one.
    pub(crate) gateway: Option<GatewayCheck>,
    /// The response to `innkeeper config`.
    pub(crate) config: Arc<ConfigReport>,
    /// The start time of the daemon.
    pub(crate) started_at: Timestamp,
    /// Ends the streams when the daemon stops: they would keep it running.
    pub(crate) stopping: CancellationToken,
}

/// The maximum length of a request's body, in bytes. Valid ones are shorter.
const BODY_LIMIT: usize = 64 * 1024;

/// Returns the routes of the API, for both sockets: [`Peer`] is the client of a connection.
pub(crate) fn router(context: Context) -> Router {
    let calls = calls::all();
    let document = Document::of(calls.iter().map(Call::gated));
    calls
        .into_iter()
        .fold(Router::new(), |router, call| call.serve(router, &context))
        .fallback(async || {
            ApiError(Failure::new(Code::InvalidRequest, "this call does not exist")
                .with_remedy("The program and innkeeperd may have different versions; `innkeeper status` shows the daemon's."))
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(Extension(document))
        .layer(map_response(rejection::as_failure))
        .with_state(context)
}
