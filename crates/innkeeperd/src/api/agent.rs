//! The agent in the path of a call below `/v1/guests/{name}`.

use std::collections::HashMap;

use axum::extract::{FromRequestParts, Path};
use axum::http::Method;
use axum::http::request::Parts;
use innkeeper_model::{Code, Failure, GuestKind, GuestName};

use super::access::{Access, Scope};
use super::response::name;
use super::{Caller, Context, visible};
use crate::api_error::ApiError;

/// The name of an existing agent that the caller may use as the call does. Rejects a preview's guest: its worker would revert the change, or the preview would lose
/// files that its database and its route still refer to.
pub(super) struct Agent(pub(super) GuestName);

impl FromRequestParts<Context> for Agent {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, ApiError> {
        let Path(parameters) = Path::<HashMap<String, String>>::from_request_parts(parts, context)
            .await
            .map_err(|error| ApiError(Failure::new(Code::InvalidRequest, error.to_string())))?;
        let name = name(parameters.get("name").map_or("", String::as_str))?;
        let caller = Caller::from_request_parts(parts, context).await?;
        let guest = context.engine.guest(&name).await?;
        visible::require_guest(context.engine.store(), &caller, &name).await?;
        match guest.kind {
            GuestKind::Agent => {
                let access = parts.extensions.get::<Access>();
                if access.is_none_or(|access| access.scope == Scope::Own) {
                    visible::require_own(&caller, &guest)?;
                }
                Ok(Self(name))
            }
            GuestKind::Preview => {
                let path = parts.uri.path();
                Err(ApiError(is_a_preview(&name, &parts.method, path)))
            }
        }
    }
}

/// Returns the failure for a preview's guest, with the equivalent command of `preview`.
fn is_a_preview(name: &GuestName, method: &Method, path: &str) -> Failure {
    let own = format!("/v1/guests/{name}");
    let remedy = match path.strip_prefix(&own).unwrap_or(path) {
        "" if method == Method::DELETE => format!("Use `preview destroy {name}`."),
        "/start" => format!("Use `preview start {name}`."),
        "/stop" => format!("Use `preview stop {name}`."),
        "/set" => format!("`preview update {name}` builds its branch again."),
        "/logs" => format!("Use `preview logs {name}`."),
        "/exec" => format!("Use `preview exec {name}`."),
        rest if rest.starts_with("/connect/") => format!("Use `preview port-forward {name}`."),
        _ => "Previews have no snapshots or copies; `agent list` shows the agents.".to_owned(),
    };
    let message = format!("'{name}' is a preview, not an agent");
    Failure::new(Code::GuestIsPreview, message).with_remedy(remedy)
}
