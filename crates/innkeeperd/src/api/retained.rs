//! Calls about the files of destroyed agents.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use innkeeper_model::api::{Accepted, RetainedView, UndeleteRequest};
use innkeeper_model::{Code, Failure, RetainedId};

use super::response::{ApiResult, accepted, body, name};
use super::{Caller, Context};
use crate::api_error::ApiError;
use crate::quotas::Wanted;

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
    let (former, actor) = (name(&former)?, caller.actor());
    let request: UndeleteRequest = body(&request)?;
    let _admitted = match context.engine.retained().await?.into_iter().rfind(|view| {
        view.retained.name == former && request.id.is_none_or(|id| view.retained.id == id)
    }) {
        Some(view) => {
            let wanted = Wanted::with(&view.retained.limits);
            context.quotas.admit(&caller, wanted).await?
        }
        // The engine refuses it.
        None => None,
    };
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
