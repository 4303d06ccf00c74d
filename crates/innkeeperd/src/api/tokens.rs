//! Calls about tokens.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use innkeeper_model::access::{CreateToken, CreatedToken, TokenName, TokenRecord};
use innkeeper_model::{Code, Failure};

use super::access::require;
use super::response::{ApiResult, body};
use super::{Caller, Context};
use crate::api_error::ApiError;
use crate::audit::AuditObject;

pub(super) async fn list(State(context): State<Context>) -> ApiResult<Vec<TokenRecord>> {
    Ok(Json(context.tokens.list().await?))
}

pub(super) async fn create(
    State(context): State<Context>,
    caller: Caller,
    request: Bytes,
) -> Result<(Extension<AuditObject>, Json<CreatedToken>), ApiError> {
    let request: CreateToken = body(&request)?;
    // No token has more rights than the one that created it.
    require(&caller, request.role)?;
    let object = AuditObject(format!("{} ({})", request.name, request.role));
    let created = context.tokens.create(request, &caller.actor()).await?;
    Ok((Extension(object), Json(created)))
}

pub(super) async fn revoke(
    State(context): State<Context>,
    Path(token): Path<String>,
) -> ApiResult<TokenRecord> {
    let name = TokenName::parse(&token)
        .map_err(|error| ApiError(Failure::new(Code::InvalidRequest, error.to_string())))?;
    Ok(Json(context.tokens.revoke(&name).await?))
}
