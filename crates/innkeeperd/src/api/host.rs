//! Calls about the host as a whole.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use innkeeper_model::access::ReadyReport;
use innkeeper_model::api::{
    Accepted, ConfigReport, DoctorReport, GcReport, PoolReport, SlotReport, Status,
};
use innkeeper_model::{GuestName, GuestUsage, Operation, OperationId};

use super::private::Sight;
use super::response::{ApiResult, accepted, body};
use super::{Caller, Context, visible};
use crate::api_error::ApiError;

pub(super) async fn status(State(context): State<Context>, caller: Caller) -> ApiResult<Status> {
    let mut status = context.engine.status(context.started_at).await?;
    let sight = Sight::of(&context);
    let mut operations = Vec::new();
    for operation in status.operations {
        let (guest, id) = (operation.guest.as_ref(), Some(operation.id));
        if sight.operation(&caller, guest, id).await? {
            operations.push(operation);
        }
    }
    status.operations = operations;
    status.audit = Some(context.audit.retention());
    Ok(Json(status))
}

/// Reports whether the parts of the host work that every guest needs.
pub(super) async fn ready(State(context): State<Context>) -> (StatusCode, Json<ReadyReport>) {
    let mut failing = context.engine.failing_parts().await;
    if let Some(previews) = &context.previews
        && !previews.web_server_works().await
    {
        failing.push("caddy");
    }
    let ready = failing.is_empty();
    let report = ReadyReport {
        ready,
        failing: failing.into_iter().map(str::to_owned).collect(),
    };
    let status = match ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(report))
}

pub(super) async fn config(State(context): State<Context>) -> Json<ConfigReport> {
    Json(ConfigReport::clone(&context.config))
}

pub(super) async fn doctor(State(context): State<Context>) -> ApiResult<DoctorReport> {
    let mut report = context.engine.doctor().await?;
    if let Some(previews) = &context.previews {
        report.checks.extend(previews.checks().await);
    }
    if let Some(gateway) = &context.gateway {
        report.checks.push(gateway.check().await);
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

/// The owner of a slot whose guest the caller may not see.
const HIDDEN_OWNER: &str = "a private preview";

pub(super) async fn slots(State(context): State<Context>, caller: Caller) -> ApiResult<SlotReport> {
    let mut report = context.engine.slots().await?;
    let hidden = Sight::of(&context).hidden_from(&caller).await?;
    for taken in &mut report.taken {
        if hidden.iter().any(|name| name.as_str() == taken.owner) {
            HIDDEN_OWNER.clone_into(&mut taken.owner);
        }
    }
    Ok(Json(report))
}

pub(super) async fn pool(State(context): State<Context>, caller: Caller) -> ApiResult<PoolReport> {
    let mut report = context.engine.pool().await?;
    let hidden = Sight::of(&context).hidden_from(&caller).await?;
    let is_hidden = |guest: &GuestName| hidden.contains(guest);
    report
        .volumes
        .retain(|volume| !volume.guest.as_ref().is_some_and(is_hidden));
    Ok(Json(report))
}

pub(super) async fn usage(
    State(context): State<Context>,
    caller: Caller,
) -> ApiResult<Vec<GuestUsage>> {
    let mut usage = context.engine.usage().await?;
    let hidden = Sight::of(&context).hidden_from(&caller).await?;
    usage.retain(|one| !hidden.contains(&one.name));
    Ok(Json(usage))
}

pub(super) async fn build(
    State(context): State<Context>,
    caller: Caller,
    request: Bytes,
) -> Result<(StatusCode, Json<Accepted>), ApiError> {
    Ok(accepted(
        context
            .engine
            .build(body(&request)?, &caller.actor(), caller.trust())
            .await?,
    ))
}

pub(super) async fn prefetch(
    State(context): State<Context>,
    caller: Caller,
) -> Result<(StatusCode, Json<Accepted>), ApiError> {
    let actor = caller.actor();
    let started = context.prefetches.start(&actor, caller.trust());
    Ok(accepted(started.await?))
}

pub(super) async fn back_up(
    State(context): State<Context>,
    caller: Caller,
    request: Bytes,
) -> Result<(StatusCode, Json<Accepted>), ApiError> {
    let (request, actor) = (body(&request)?, caller.actor());
    let taken = context.backups.take(request, &actor, caller.trust());
    Ok(accepted(taken.await?))
}

pub(super) async fn restore(
    State(context): State<Context>,
    caller: Caller,
    request: Bytes,
) -> Result<(StatusCode, Json<Accepted>), ApiError> {
    let (request, actor) = (body(&request)?, caller.actor());
    let restored = context.backups.restore(request, &actor, caller.trust());
    Ok(accepted(restored.await?))
}

pub(super) async fn operation(
    State(context): State<Context>,
    caller: Caller,
    Path(id): Path<i64>,
) -> ApiResult<Operation> {
    let operation = visible::require_operation(&context, &caller, OperationId(id));
    Ok(Json(operation.await?))
}
