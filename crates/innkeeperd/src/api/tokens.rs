//! Calls about tokens.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, State};
use innkeeper_model::access::{CreatedToken, TokenName, TokenRecord};
use innkeeper_model::{Code, Failure, Trust};

use super::response::{ApiResult, body};
use super::{Context, Peer};
use crate::api_error::ApiError;

pub(super) async fn list(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> ApiResult<Vec<TokenRecord>> {
    require_root(peer)?;
    Ok(Json(context.tokens.list().await?))
}

pub(super) async fn create(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Bytes,
) -> ApiResult<CreatedToken> {
    require_root(peer)?;
    let (request, actor) = (body(&request)?, peer.actor());
    Ok(Json(context.tokens.create(request, &actor).await?))
}

pub(super) async fn revoke(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(token): Path<String>,
) -> ApiResult<TokenRecord> {
    require_root(peer)?;
    let name = TokenName::parse(&token)
        .map_err(|error| ApiError(Failure::new(Code::InvalidRequest, error.to_string())))?;
    Ok(Json(context.tokens.revoke(&name).await?))
}

/// Refuses members of the group: a token outlives the membership.
fn require_root(peer: Peer) -> Result<(), ApiError> {
    match peer.trust() {
        Trust::Host => Ok(()),
        Trust::Member => {
            let failure = Failure::new(Code::Forbidden, "only root may manage tokens");
            Err(ApiError(failure.with_remedy(
                "Run it as root (`sudo innkeeper token list`).",
            )))
        }
    }
}
