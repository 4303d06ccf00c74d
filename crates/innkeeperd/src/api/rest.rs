//! Calls about the rest of idle guests.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use innkeeper_model::{GuestName, IdleRequest, KeepaliveRequest, RestReport};

use super::agent::Agent;
use super::previews::OnePreview;
use super::response::{ApiResult, body};
use super::{Caller, Context};
use crate::api_error::ApiError;

pub(super) async fn show(
    State(context): State<Context>,
    Agent(guest): Agent,
) -> ApiResult<RestReport> {
    report(&context, &guest).await
}

pub(super) async fn show_preview(
    State(context): State<Context>,
    OnePreview(previews, slug): OnePreview,
) -> ApiResult<RestReport> {
    let guest = previews.guest(&slug).await?.guest.name;
    report(&context, &guest).await
}

pub(super) async fn set_idle(
    State(context): State<Context>,
    Agent(guest): Agent,
    request: Bytes,
) -> ApiResult<RestReport> {
    set(&context, &guest, &request).await
}

pub(super) async fn set_idle_of_preview(
    State(context): State<Context>,
    OnePreview(previews, slug): OnePreview,
    request: Bytes,
) -> ApiResult<RestReport> {
    let guest = previews.guest(&slug).await?.guest.name;
    set(&context, &guest, &request).await
}

pub(super) async fn keep_awake(
    State(context): State<Context>,
    caller: Caller,
    Agent(guest): Agent,
    request: Bytes,
) -> ApiResult<RestReport> {
    keep(&context, &guest, &caller, &request).await
}

pub(super) async fn keep_preview_awake(
    State(context): State<Context>,
    caller: Caller,
    OnePreview(previews, slug): OnePreview,
    request: Bytes,
) -> ApiResult<RestReport> {
    let guest = previews.guest(&slug).await?.guest.name;
    keep(&context, &guest, &caller, &request).await
}

async fn report(context: &Context, guest: &GuestName) -> ApiResult<RestReport> {
    Ok(Json(context.engine.rest_report(guest).await?))
}

async fn set(context: &Context, guest: &GuestName, request: &Bytes) -> ApiResult<RestReport> {
    let IdleRequest { idle_policy } = body(request)?;
    context.engine.set_idle_policy(guest, idle_policy).await?;
    report(context, guest).await
}

async fn keep(
    context: &Context,
    guest: &GuestName,
    caller: &Caller,
    request: &Bytes,
) -> Result<Json<RestReport>, ApiError> {
    let KeepaliveRequest { seconds } = body(request)?;
    let (time, actor) = (Duration::from_secs(seconds), caller.actor());
    context.engine.keep_awake(guest, time, &actor).await?;
    report(context, guest).await
}
