//! Calls about GitHub's deliveries.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use innkeeper_model::api::DEFAULT_DELIVERIES;
use innkeeper_model::preview::PullRequest;
use innkeeper_model::preview::api::{DeliveryDetails, DeliveryView};
use innkeeper_model::{Explain, Failure};
use innkeeper_store::{Delivery, DeliveryFilter, Preview, StoreError};
use serde::Deserialize;
use utoipa::IntoParams;

use super::private::Sight;
use super::response::{ApiResult, accepted};
use super::{Caller, Context};
use crate::api_error::ApiError;
use crate::intake::explain;

/// The deliveries that a call selects.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// The pull request, `owner/name#7`.
    pull_request: Option<String>,
    /// The maximum number of deliveries; 50 when omitted.
    limit: Option<usize>,
}

pub(super) async fn list(
    State(context): State<Context>,
    caller: Caller,
    Query(filter): Query<Filter>,
) -> ApiResult<Vec<DeliveryView>> {
    let pull_request = filter
        .pull_request
        .map(|text| PullRequest::parse(&text))
        .transpose()
        .map_err(|error| ApiError(Failure::new(error.code(), error.to_string())))?;
    let (repo, number) = pull_request.map(|one| (one.repo, one.number)).unzip();
    let filter = DeliveryFilter {
        repo,
        number,
        limit: filter.limit.unwrap_or(DEFAULT_DELIVERIES),
        ..DeliveryFilter::default()
    };
    let mut views = Vec::new();
    let deliveries = context.engine.store().deliveries(filter).await?;
    let sight = Sight::of(&context);
    for delivery in sight.readable(&caller, deliveries).await {
        let preview = preview_of(&context, &delivery).await?;
        views.push(view(&context, &delivery, preview.as_ref()).await?);
    }
    Ok(Json(views))
}

pub(super) async fn show(
    State(context): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> ApiResult<DeliveryDetails> {
    let delivery = context.engine.store().delivery(&id).await?;
    let delivery = Vec::from_iter(delivery);
    let mut delivery = Sight::of(&context).readable(&caller, delivery).await;
    let delivery = delivery.pop().ok_or(StoreError::DeliveryNotFound { id })?;
    let preview = preview_of(&context, &delivery).await?;
    Ok(Json(DeliveryDetails {
        delivery: view(&context, &delivery, preview.as_ref()).await?,
        event: delivery.event,
        preview: preview.map(|preview| preview.record),
    }))
}

pub(super) async fn replay(
    State(context): State<Context>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<DeliveryView>), ApiError> {
    let delivery = context.engine.store().replay_delivery(&id).await?;
    context.notifier.notify();
    let preview = preview_of(&context, &delivery).await?;
    Ok(accepted(view(&context, &delivery, preview.as_ref()).await?))
}

async fn preview_of(context: &Context, delivery: &Delivery) -> Result<Option<Preview>, StoreError> {
    let store = context.engine.store();
    store.preview_of(delivery.event.pull_request()).await
}

async fn view(
    context: &Context,
    delivery: &Delivery,
    preview: Option<&Preview>,
) -> Result<DeliveryView, StoreError> {
    let other = context
        .engine
        .store()
        .superseding_delivery(delivery)
        .await?;
    Ok(explain::view(
        delivery,
        preview.map(|preview| &preview.record.slug),
        other.as_ref(),
    ))
}
