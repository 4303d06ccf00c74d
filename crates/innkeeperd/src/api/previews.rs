//! Calls about previews.

use std::collections::HashMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use innkeeper_model::api::{Accepted, GuestView};
use innkeeper_model::preview::api::{
    BuildPreview, CreatePreview, PreviewAccepted, PreviewExplanation, SetVisibility,
    VisibilityReport,
};
use innkeeper_model::preview::check::{CheckSettings, CheckedConfig};
use innkeeper_model::preview::log::LogFilter;
use innkeeper_model::preview::{PreviewView, parse_existing_slug};
use innkeeper_model::{Code, Failure, GuestName};
use innkeeper_preview::Previews;
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::IntoParams;

use super::private::Sight;
use super::response::{ApiResult, Created, LogQuery, accepted, body, created_as, log_lines};
use super::{Caller, Context, private, visible};
use crate::api_error::ApiError;

type Started = Result<(StatusCode, Json<PreviewAccepted>), ApiError>;

/// The previews of this host. On a host without previews, every call fails with a remedy.
pub(super) struct AllPreviews(pub(super) Previews);

impl FromRequestParts<Context> for AllPreviews {
    type Rejection = ApiError;

    async fn from_request_parts(_: &mut Parts, context: &Context) -> Result<Self, ApiError> {
        context.previews.clone().map(Self).ok_or_else(|| {
            let message = "this host has no previews: previews.domain is not set";
            let remedy = "Set previews.domain in innkeeperd's configuration and restart innkeeperd; docs/previews-host.md lists the other requirements.";
            ApiError(Failure::new(Code::InvalidConfig, message).with_remedy(remedy))
        })
    }
}

/// The previews of this host, and the slug in a call's path. The caller may see the preview, or it does not exist.
pub(super) struct OnePreview(pub(super) Previews, pub(super) GuestName);

impl FromRequestParts<Context> for OnePreview {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, ApiError> {
        let AllPreviews(previews) = AllPreviews::from_request_parts(parts, context).await?;
        let Path(parameters) = Path::<HashMap<String, String>>::from_request_parts(parts, context)
            .await
            .map_err(|error| ApiError(Failure::new(Code::InvalidRequest, error.to_string())))?;
        let slug = parameters.get("slug").map_or("", String::as_str);
        let slug = parse_existing_slug(slug).map_err(|error| ApiError(Failure::from(&error)))?;
        let caller = Caller::from_request_parts(parts, context).await?;
        visible::require_preview(context.engine.store(), &caller, &slug).await?;
        Ok(Self(previews, slug))
    }
}

pub(super) async fn list(
    State(context): State<Context>,
    AllPreviews(previews): AllPreviews,
    caller: Caller,
) -> ApiResult<Vec<PreviewView>> {
    let mut views = previews.list().await?;
    if let Some(repo) = caller.repo() {
        views.retain(|view| view.preview.repo == *repo);
    }
    let hidden = Sight::of(&context).hidden_from(&caller).await?;
    views.retain(|view| !hidden.contains(&view.preview.slug));
    Ok(Json(views))
}

pub(super) async fn create(
    State(context): State<Context>,
    AllPreviews(previews): AllPreviews,
    caller: Caller,
    request: Bytes,
) -> Created<PreviewAccepted> {
    let request: CreatePreview = body(&request)?;
    visible::require_repo(&caller, &request.repo)?;
    private::require_reader(&previews, &caller, &request.repo).await?;
    let _admitted = context.quotas.admit_preview(&caller).await?;
    let created = previews.create(request, &caller.actor()).await?;
    Ok(created_as(created.slug.to_string(), accepted(created)))
}

pub(super) async fn build(
    AllPreviews(previews): AllPreviews,
    caller: Caller,
    request: Bytes,
) -> Result<(StatusCode, Json<Accepted>), ApiError> {
    let request: BuildPreview = body(&request)?;
    visible::require_repo(&caller, &request.repo)?;
    private::require_reader(&previews, &caller, &request.repo).await?;
    Ok(accepted(previews.build(request, &caller.actor()).await?))
}

pub(super) async fn check_settings(AllPreviews(previews): AllPreviews) -> Json<CheckSettings> {
    Json(previews.check_settings())
}

pub(super) async fn check(
    AllPreviews(previews): AllPreviews,
    request: Bytes,
) -> ApiResult<CheckedConfig> {
    Ok(Json(previews.check_config(body(&request)?).await?))
}

pub(super) async fn show(OnePreview(previews, slug): OnePreview) -> ApiResult<PreviewView> {
    Ok(Json(previews.show(&slug).await?))
}

pub(super) async fn destroy(OnePreview(previews, slug): OnePreview, caller: Caller) -> Started {
    Ok(accepted(previews.destroy(&slug, &caller.actor()).await?))
}

pub(super) async fn update(OnePreview(previews, slug): OnePreview, caller: Caller) -> Started {
    Ok(accepted(previews.update(&slug, &caller.actor()).await?))
}

pub(super) async fn guest(OnePreview(previews, slug): OnePreview) -> ApiResult<GuestView> {
    Ok(Json(previews.guest(&slug).await?))
}

pub(super) async fn start(
    OnePreview(previews, slug): OnePreview,
    caller: Caller,
) -> Result<(StatusCode, Json<Accepted>), ApiError> {
    Ok(accepted(
        previews.start_guest(&slug, &caller.actor()).await?,
    ))
}

pub(super) async fn stop(
    OnePreview(previews, slug): OnePreview,
    caller: Caller,
) -> Result<(StatusCode, Json<Accepted>), ApiError> {
    Ok(accepted(previews.stop_guest(&slug, &caller.actor()).await?))
}

pub(super) async fn pause(
    OnePreview(previews, slug): OnePreview,
    caller: Caller,
) -> Result<(StatusCode, Json<Accepted>), ApiError> {
    Ok(accepted(
        previews.pause_guest(&slug, &caller.actor()).await?,
    ))
}

pub(super) async fn sleep(
    OnePreview(previews, slug): OnePreview,
    caller: Caller,
) -> Result<(StatusCode, Json<Accepted>), ApiError> {
    Ok(accepted(
        previews.sleep_guest(&slug, &caller.actor()).await?,
    ))
}

pub(super) async fn wake(
    OnePreview(previews, slug): OnePreview,
    caller: Caller,
) -> Result<(StatusCode, Json<Accepted>), ApiError> {
    Ok(accepted(previews.wake_guest(&slug, &caller.actor()).await?))
}

pub(super) async fn approve(
    State(context): State<Context>,
    OnePreview(previews, slug): OnePreview,
    caller: Caller,
    request: Bytes,
) -> Created<PreviewAccepted> {
    private::require_writer(&previews, &caller, &slug).await?;
    let preview = context.engine.store().preview(&slug).await?;
    let actor = caller.actor();
    let approved = previews.approve(&slug, body(&request)?, &actor).await?;
    let repos = preview.map(|preview| (preview.record.head_repo, preview.record.repo));
    let object = match repos {
        Some((Some(head), base)) => format!("{slug} (of {head} for {base})"),
        _ => slug.to_string(),
    };
    Ok(created_as(object, accepted(approved)))
}

pub(super) async fn reset_database(
    OnePreview(previews, slug): OnePreview,
    caller: Caller,
) -> Started {
    Ok(accepted(
        previews.reset_database(&slug, &caller.actor()).await?,
    ))
}

pub(super) async fn explain(
    OnePreview(previews, slug): OnePreview,
) -> ApiResult<PreviewExplanation> {
    Ok(Json(previews.explain(&slug).await?))
}

pub(super) async fn visibility(
    OnePreview(previews, slug): OnePreview,
) -> ApiResult<VisibilityReport> {
    Ok(Json(previews.visibility(&slug).await?))
}

pub(super) async fn set_visibility(
    OnePreview(previews, slug): OnePreview,
    caller: Caller,
    request: Bytes,
) -> ApiResult<VisibilityReport> {
    let SetVisibility { visibility } = body(&request)?;
    let actor = caller.actor();
    let set = previews.set_visibility(&slug, visibility, &actor);
    Ok(Json(set.await?))
}

pub(super) async fn logs(
    OnePreview(previews, slug): OnePreview,
    State(context): State<Context>,
    caller: Caller,
    Query(query): Query<LogQuery>,
    Query(selection): Query<LogSelection>,
) -> Result<Response, ApiError> {
    let filter = LogFilter {
        since: selection.since,
        service: selection.service,
        attempt: selection.attempt,
    };
    let log = previews
        .logs(&slug, query.lines, query.follow, filter)
        .await?;
    Ok(log_lines(&context, &caller, log))
}

/// The lines of a preview's log that a call selects.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct LogSelection {
    /// The time of the earliest line.
    since: Option<Timestamp>,
    /// The service.
    service: Option<String>,
    /// The number of the attempt.
    attempt: Option<u64>,
}
