//! Calls about share links and tokens of previews.

use std::collections::HashMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::Path;
use innkeeper_model::access::{CreatedGrant, GrantId, GrantRecord};
use innkeeper_model::{Code, Failure};

use super::Caller;
use super::previews::OnePreview;
use super::response::{ApiResult, body};
use crate::access::random_secret;
use crate::api_error::ApiError;

pub(super) async fn list(OnePreview(previews, slug): OnePreview) -> ApiResult<Vec<GrantRecord>> {
    Ok(Json(previews.grants(&slug).await?))
}

pub(super) async fn create(
    OnePreview(previews, slug): OnePreview,
    caller: Caller,
    request: Bytes,
) -> ApiResult<CreatedGrant> {
    let request = body(&request)?;
    let actor = caller.actor();
    let created = previews.create_grant(&slug, request, random_secret()?, &actor);
    Ok(Json(created.await?))
}

pub(super) async fn delete(
    OnePreview(previews, slug): OnePreview,
    caller: Caller,
    Path(parameters): Path<HashMap<String, String>>,
) -> ApiResult<GrantRecord> {
    let id = parameters.get("id").map_or("", String::as_str);
    let id: GrantId = id.parse().map_err(|_| {
        let message = format!("{id:?} is not the number of a share link or token");
        let remedy = format!("`preview shares {slug}` shows the numbers.");
        ApiError(Failure::new(Code::InvalidRequest, message).with_remedy(remedy))
    })?;
    let actor = caller.actor();
    Ok(Json(previews.delete_grant(&slug, id, &actor).await?))
}
