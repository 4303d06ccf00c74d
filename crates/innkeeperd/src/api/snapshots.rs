//! Calls about agents' snapshots and copies.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use innkeeper_model::api::{Accepted, SnapshotAccepted};
use innkeeper_model::{Failure, Snapshot, SnapshotLabel};

use super::agent::Agent;
use super::response::{ApiResult, Created, accepted, body, created_as};
use super::{Caller, Context};
use crate::api_error::ApiError;
use crate::quotas::Wanted;

type Started<T> = Result<(StatusCode, Json<T>), ApiError>;

pub(super) async fn all(State(context): State<Context>) -> ApiResult<Vec<Snapshot>> {
    Ok(Json(context.engine.snapshots().await?))
}

pub(super) async fn list(
    State(context): State<Context>,
    Agent(guest): Agent,
) -> ApiResult<Vec<Snapshot>> {
    Ok(Json(context.engine.snapshots_of(&guest).await?))
}

pub(super) async fn take(
    State(context): State<Context>,
    caller: Caller,
    Agent(guest): Agent,
    request: Bytes,
) -> Started<SnapshotAccepted> {
    let request = body(&request)?;
    let actor = caller.actor();
    let taken = context.engine.snapshot(&guest, request, &actor);
    Ok(accepted(taken.await?))
}

pub(super) async fn delete(
    State(context): State<Context>,
    caller: Caller,
    Agent(guest): Agent,
    Path((_, snapshot)): Path<(String, String)>,
) -> Started<Accepted> {
    let label = label(&snapshot)?;
    let actor = caller.actor();
    let deleted = context.engine.delete_snapshot(&guest, &label, &actor);
    Ok(accepted(deleted.await?))
}

pub(super) async fn restore(
    State(context): State<Context>,
    caller: Caller,
    Agent(guest): Agent,
    Path((_, snapshot)): Path<(String, String)>,
) -> Started<Accepted> {
    let label = label(&snapshot)?;
    let actor = caller.actor();
    let restored = context.engine.restore_snapshot(&guest, &label, &actor);
    Ok(accepted(restored.await?))
}

pub(super) async fn fork(
    State(context): State<Context>,
    caller: Caller,
    Agent(guest): Agent,
    request: Bytes,
) -> Created<Accepted> {
    let request = body(&request)?;
    let origin = context.engine.guest(&guest).await?;
    let wanted = Wanted::copy_of(&origin);
    let _admitted = context.quotas.admit(&caller, wanted).await?;
    let actor = caller.actor();
    let forked = context.engine.fork(&guest, request, &actor).await?;
    let copy = forked.guest.as_ref().map(ToString::to_string);
    let object = format!("{guest} (copied as {})", copy.unwrap_or_default());
    Ok(created_as(object, accepted(forked)))
}

/// Parses a label in a path.
fn label(text: &str) -> Result<SnapshotLabel, ApiError> {
    SnapshotLabel::parse(text).map_err(|error| ApiError(Failure::from(&error)))
}
