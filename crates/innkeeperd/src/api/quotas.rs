//! The call for quotas and their use.

use axum::Json;
use axum::extract::State;
use innkeeper_model::access::QuotaReport;

use super::private::Sight;
use super::response::ApiResult;
use super::{Caller, Context};
use crate::access::Owner;

pub(super) async fn show(State(context): State<Context>, caller: Caller) -> ApiResult<QuotaReport> {
    let mut owners = context.tokens.owners().await?;
    if let (Some(name), true) = (caller.name(), caller.is_remote()) {
        // Also of a pair in the gateway's own file, which has no record.
        let role = Some(caller.role());
        owners.insert(caller.actor(), Owner { name, role });
    }
    let hidden = Sight::of(&context).hidden_from(&caller).await?;
    Ok(Json(
        context.quotas.report(&caller, &owners, &hidden).await?,
    ))
}
