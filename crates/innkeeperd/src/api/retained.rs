//! Calls about the files of destroyed agents.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use innkeeper_model::api::{Accepted, RetainedView};
use innkeeper_model::{Code, Failure, RetainedId};

use super::response::{ApiResult, accepted, body, name};
use super::{Caller, Context};
use crate::api_error::ApiError;

type Started = Result<(StatusCode, Json<Accepted>), ApiError>;

pub(super) async fn list(State(context): State<Context>) -> ApiResult<Vec<RetainedView>> {
    Ok(Json(context.engine.retained().await?))
}

pub(super) async fn undelete(
    State(context): State<Context>,
    caller: Caller,
    Path(former): Path<String>,
    request: Bytes,
) -> Started {
    let (former, request, actor) = (name(&former)?, body(&request)?, caller.actor());
    let undeleted = context.engine.undelete(&former, request, &actor);
    Ok(accepted(undeleted.await?))
}

pub(super) async fn purge(
    State(context): State<Context>,
    caller: Caller,
    Path(number): Path<String>,
) -> Started {
    let id: RetainedId = number.parse().map_err(|_| {
        let message = format!("'{}' is not a number", number.escape_debug());
        ApiError(Failure::new(Code::InvalidRequest, message))
    })?;
    Ok(accepted(context.engine.purge(id, &caller.actor()).await?))
}
