//! The call for the audit log.

use axum::Json;
use axum::extract::{Query, State};
use innkeeper_model::access::{AuditEntry, DEFAULT_AUDIT_ENTRIES, MAX_AUDIT_ENTRIES};
use innkeeper_store::AuditFilter;
use jiff::Timestamp;
use serde::Deserialize;

use super::Context;
use super::response::ApiResult;

#[derive(Deserialize)]
pub(super) struct Filter {
    actor: Option<String>,
    since: Option<Timestamp>,
    limit: Option<usize>,
}

pub(super) async fn list(
    State(context): State<Context>,
    Query(filter): Query<Filter>,
) -> ApiResult<Vec<AuditEntry>> {
    let limit = filter.limit.unwrap_or(DEFAULT_AUDIT_ENTRIES);
    let filter = AuditFilter {
        actor: filter.actor,
        since: filter.since,
        limit: limit.min(MAX_AUDIT_ENTRIES),
    };
    Ok(Json(context.engine.store().audit(filter).await?))
}
