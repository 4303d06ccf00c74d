//! The call for the audit log.

use axum::Json;
use axum::extract::{Query, State};
use innkeeper_model::access::{AuditEntry, DEFAULT_AUDIT_ENTRIES, MAX_AUDIT_ENTRIES};
use innkeeper_store::AuditFilter;
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Context;
use super::response::ApiResult;

/// The entries that a call selects.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// The actor: `uid:1000`, `token:7`.
    actor: Option<String>,
    /// The time of the earliest entry.
    since: Option<Timestamp>,
    /// The maximum number of entries; the newest ones count.
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
