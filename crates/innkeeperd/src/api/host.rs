//! Calls about the host as a whole.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::StatusCode;
use innkeeper_model::api::{
    Accepted, ConfigReport, DoctorReport, GcReport, PoolReport, SlotReport, Status,
};
use innkeeper_model::{GuestUsage, Operation, OperationId};

use super::response::{ApiResult, accepted, body};
use super::{Context, Peer};
use crate::api_error::ApiError;

pub(super) async fn status(State(context): State<Context>) -> ApiResult<Status> {
    Ok(Json(context.engine.status(context.started_at).await?))
}

pub(super) async fn config(State(context): State<Context>) -> Json<ConfigReport> {
    Json(ConfigReport::clone(&context.config))
}

pub(super) async fn doctor(State(context): State<Context>) -> ApiResult<DoctorReport> {
    let mut report = context.engine.doctor().await?;
    if let Some(previews) = &context.previews {
        report.checks.extend(previews.checks().await);
    }
    report
        .checks
        .extend(crate::config::next_start(&context.config));
    Ok(Json(report))
}

pub(super) async fn gc(State(context): State<Context>, request: Bytes) -> ApiResult<GcReport> {
    let request: innkeeper_model::api::GcRequest = body(&request)?;
    let mut report = context.engine.gc(request).await?;
    if let Some(previews) = &context.previews {
        let of_previews = previews.gc(request).await;
        report.orphans.extend(of_previews.orphans);
        report.failures.extend(of_previews.failures);
    }
    Ok(Json(report))
}

pub(super) async fn slots(State(context): State<Context>) -> ApiResult<SlotReport> {
    Ok(Json(context.engine.slots().await?))
}

pub(super) async fn pool(State(context): State<Context>) -> ApiResult<PoolReport> {
    Ok(Json(context.engine.pool().await?))
}

pub(super) async fn usage(State(context): State<Context>) -> ApiResult<Vec<GuestUsage>> {
    Ok(Json(context.engine.usage().await?))
}

pub(super) async fn build(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Bytes,
) -> Result<(StatusCode, Json<Accepted>), ApiError> {
    Ok(accepted(
        context
            .engine
            .build(body(&request)?, &peer.actor(), peer.trust())
            .await?,
    ))
}

pub(super) async fn prefetch(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> Result<(StatusCode, Json<Accepted>), ApiError> {
    let actor = peer.actor();
    let started = context.prefetches.start(&actor, peer.trust());
    Ok(accepted(started.await?))
}

pub(super) async fn back_up(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Bytes,
) -> Result<(StatusCode, Json<Accepted>), ApiError> {
    let (request, actor) = (body(&request)?, peer.actor());
    let taken = context.backups.take(request, &actor, peer.trust());
    Ok(accepted(taken.await?))
}

pub(super) async fn restore(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Bytes,
) -> Result<(StatusCode, Json<Accepted>), ApiError> {
    let (request, actor) = (body(&request)?, peer.actor());
    let restored = context.backups.restore(request, &actor, peer.trust());
    Ok(accepted(restored.await?))
}

pub(super) async fn operation(
    State(context): State<Context>,
    Path(id): Path<i64>,
) -> ApiResult<Operation> {
    Ok(Json(context.engine.operation(OperationId(id)).await?))
}
