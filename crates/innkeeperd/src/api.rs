//! The API on the Unix socket. `innkeeper_model::api` lists the calls.

mod agent;
mod connect;
mod deliveries;
mod events;
mod exec;
mod guests;
mod host;
mod listener;
mod previews;
mod response;
mod rest;
mod retained;
mod snapshots;
mod tokens;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, post};
use innkeeper_engine::Engine;
use innkeeper_model::api::ConfigReport;
use innkeeper_model::preview::check::CheckConfig;
use innkeeper_model::{Code, Failure};
use innkeeper_preview::Previews;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::access::Tokens;
use crate::api_error::ApiError;
use crate::backup::Backups;
use crate::intake::Notifier;
use crate::prefetch::Prefetches;

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
    /// Notified when a delivery is replayed.
    pub(crate) notifier: Notifier,
    /// The response to `innkeeper config`.
    pub(crate) config: Arc<ConfigReport>,
    /// The start time of the daemon.
    pub(crate) started_at: Timestamp,
    /// Ends the streams when the daemon stops: they would keep it running.
    pub(crate) stopping: CancellationToken,
}

/// The maximum length of a request's body, in bytes. Valid ones are shorter.
const BODY_LIMIT: usize = 64 * 1024;

/// Returns the routes of the API.
pub(crate) fn router(context: Context) -> Router {
    Router::new()
        .route("/v1/status", get(host::status))
        .route("/v1/config", get(host::config))
        .route("/v1/doctor", get(host::doctor))
        .route("/v1/gc", post(host::gc))
        .route("/v1/slots", get(host::slots))
        .route("/v1/pool", get(host::pool))
        .route("/v1/usage", get(host::usage))
        .route("/v1/backups", post(host::back_up))
        .route("/v1/backups/restore", post(host::restore))
        .route("/v1/builds", post(host::build))
        .route("/v1/prefetches", post(host::prefetch))
        .route("/v1/operations/{id}", get(host::operation))
        .route("/v1/events", get(events::events))
        .route("/v1/guests", get(guests::list).post(guests::create))
        .route("/v1/guests/{name}", get(guests::show).delete(guests::destroy))
        .route("/v1/guests/{name}/start", post(guests::start))
        .route("/v1/guests/{name}/stop", post(guests::stop))
        .route("/v1/guests/{name}/pause", post(guests::pause))
        .route("/v1/guests/{name}/sleep", post(guests::sleep))
        .route("/v1/guests/{name}/wake", post(guests::wake))
        .route("/v1/guests/{name}/rest", get(rest::show))
        .route("/v1/guests/{name}/idle", post(rest::set_idle))
        .route("/v1/guests/{name}/keepalive", post(rest::keep_awake))
        .route("/v1/guests/{name}/set", post(guests::set))
        .route("/v1/guests/{name}/fork", post(snapshots::fork))
        .route("/v1/guests/{name}/snapshots", get(snapshots::list).post(snapshots::take))
        .route("/v1/guests/{name}/snapshots/{label}", delete(snapshots::delete))
        .route("/v1/guests/{name}/snapshots/{label}/restore", post(snapshots::restore))
        .route("/v1/snapshots", get(snapshots::all))
        .route("/v1/retained", get(retained::list))
        .route("/v1/retained/{name}", delete(retained::purge))
        .route("/v1/retained/{name}/undelete", post(retained::undelete))
        .route("/v1/guests/{name}/logs", get(guests::logs))
        .route("/v1/guests/{name}/exec", post(exec::exec))
        .route("/v1/guests/{name}/connect/{port}", post(connect::connect))
        .route("/v1/previews", get(previews::list).post(previews::create))
        .route("/v1/previews/{slug}", get(previews::show).delete(previews::destroy))
        .route("/v1/previews/{slug}/update", post(previews::update))
        .route("/v1/previews/{slug}/approve", post(previews::approve))
        .route("/v1/previews/{slug}/database/reset", post(previews::reset_database))
        .route("/v1/previews/{slug}/guest", get(previews::guest))
        .route("/v1/previews/{slug}/start", post(previews::start))
        .route("/v1/previews/{slug}/stop", post(previews::stop))
        .route("/v1/previews/{slug}/pause", post(previews::pause))
        .route("/v1/previews/{slug}/sleep", post(previews::sleep))
        .route("/v1/previews/{slug}/wake", post(previews::wake))
        .route("/v1/previews/{slug}/exec", post(exec::exec_in_preview))
        .route("/v1/previews/{slug}/connect/{port}", post(connect::connect_to_preview))
        .route("/v1/previews/{slug}/rest", get(rest::show_preview))
        .route("/v1/previews/{slug}/idle", post(rest::set_idle_of_preview))
        .route("/v1/previews/{slug}/keepalive", post(rest::keep_preview_awake))
        .route("/v1/previews/{slug}/logs", get(previews::logs))
        .route("/v1/previews/{slug}/explain", get(previews::explain))
        .route("/v1/preview-builds", post(previews::build))
        .route(
            "/v1/preview-checks",
            get(previews::check_settings)
                .post(previews::check)
                .layer(DefaultBodyLimit::max(CheckConfig::MAX_BYTES)),
        )
        .route("/v1/tokens", get(tokens::list).post(tokens::create))
        .route("/v1/tokens/{token}", delete(tokens::revoke))
        .route("/v1/deliveries", get(deliveries::list))
        .route("/v1/deliveries/{id}", get(deliveries::show))
        .route("/v1/deliveries/{id}/replay", post(deliveries::replay))
        .fallback(async || {
            ApiError(Failure::new(Code::InvalidRequest, "this call does not exist")
                .with_remedy("The program and innkeeperd may have different versions; `innkeeper status` shows the daemon's."))
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(context)
}
