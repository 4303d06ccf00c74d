//! Calls about guests.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use innkeeper_model::api::{Accepted, GuestView};
use serde::Deserialize;

use super::agent::Agent;
use super::response::{ApiResult, LogQuery, accepted, body, console, name};
use super::{Context, Peer};
use crate::api_error::ApiError;

type Started = Result<(StatusCode, Json<Accepted>), ApiError>;

pub(super) async fn list(State(context): State<Context>) -> ApiResult<Vec<GuestView>> {
    Ok(Json(context.engine.list().await?))
}

pub(super) async fn show(
    State(context): State<Context>,
    Path(guest): Path<String>,
) -> ApiResult<GuestView> {
    Ok(Json(context.engine.show(&name(&guest)?).await?))
}

pub(super) async fn create(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Bytes,
) -> Started {
    Ok(accepted(
        context
            .engine
            .create(body(&request)?, &peer.actor(), peer.trust())
            .await?,
    ))
}

pub(super) async fn destroy(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Agent(guest): Agent,
    Query(how): Query<DestroyQuery>,
) -> Started {
    let actor = peer.actor();
    let destroyed = context.engine.destroy(&guest, how.now, &actor);
    Ok(accepted(destroyed.await?))
}

/// Options of a destroy.
#[derive(Deserialize)]
pub(super) struct DestroyQuery {
    /// Removes the files at once.
    #[serde(default)]
    now: bool,
}

pub(super) async fn start(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Agent(guest): Agent,
) -> Started {
    Ok(accepted(context.engine.start(&guest, &peer.actor()).await?))
}

pub(super) async fn stop(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Agent(guest): Agent,
) -> Started {
    Ok(accepted(context.engine.stop(&guest, &peer.actor()).await?))
}

pub(super) async fn pause(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Agent(guest): Agent,
) -> Started {
    Ok(accepted(context.engine.pause(&guest, &peer.actor()).await?))
}

pub(super) async fn sleep(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Agent(guest): Agent,
) -> Started {
    Ok(accepted(context.engine.sleep(&guest, &peer.actor()).await?))
}

pub(super) async fn wake(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Agent(guest): Agent,
) -> Started {
    Ok(accepted(context.engine.wake(&guest, &peer.actor()).await?))
}

pub(super) async fn set(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Agent(guest): Agent,
    request: Bytes,
) -> Started {
    let request = body(&request)?;
    let (actor, trust) = (peer.actor(), peer.trust());
    let changed = context.engine.set(&guest, request, &actor, trust);
    Ok(accepted(changed.await?))
}

pub(super) async fn logs(
    State(context): State<Context>,
    Agent(guest): Agent,
    Query(query): Query<LogQuery>,
) -> Result<Response, ApiError> {
    let log = context.engine.console(&guest, query.lines, query.follow);
    Ok(console(&context, log.await?))
}
