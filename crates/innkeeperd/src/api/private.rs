//! Private previews, which people see with read access to their repositories only. One that a person may not see is refused
//! exactly as one that does not exist.

use std::collections::BTreeSet;

use axum::extract::{RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use innkeeper_engine::EngineError;
use innkeeper_model::preview::parse_existing_slug;
use innkeeper_model::{Code, Failure, GuestName};
use innkeeper_preview::Previews;
use innkeeper_store::StoreError;

use super::caller::Caller;
use crate::api_error::ApiError;

/// Refuses a person a call whose path names a preview, or its guest, that they may not see.
pub(super) async fn check(
    State(previews): State<Option<Previews>>,
    parameters: RawPathParams,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let caller = request.extensions().get::<Caller>().cloned();
    if let Some(caller) = caller {
        for (parameter, value) in &parameters {
            // Its handler refuses a text that is no name.
            let name = match parameter {
                "slug" => parse_existing_slug(value).ok(),
                "name" => GuestName::parse(value).ok(),
                _ => None,
            };
            let Some(name) = name else {
                continue;
            };
            if !may_see(previews.as_ref(), &caller, &name).await? {
                return Err(match parameter {
                    "slug" => StoreError::PreviewNotFound { slug: name }.into(),
                    _ => EngineError::GuestNotFound(name).into(),
                });
            }
        }
    }
    Ok(next.run(request).await)
}

/// Reports whether a caller may see the preview with a name. True if no preview has it.
pub(super) async fn may_see(
    previews: Option<&Previews>,
    caller: &Caller,
    name: &GuestName,
) -> Result<bool, ApiError> {
    match (previews, caller.person()) {
        (Some(previews), Some(person)) => Ok(previews.may_see(name, person.login.as_str()).await?),
        _ => Ok(true),
    }
}

/// Returns the previews that a caller may not see, for lists.
pub(super) async fn hidden_from(
    previews: Option<&Previews>,
    caller: &Caller,
) -> Result<BTreeSet<GuestName>, ApiError> {
    match (previews, caller.person()) {
        (Some(previews), Some(person)) => Ok(previews.hidden_from(person.login.as_str()).await?),
        _ => Ok(BTreeSet::new()),
    }
}

/// Refuses a person without write access to the repository of a preview.
pub(super) async fn require_writer(
    previews: &Previews,
    caller: &Caller,
    slug: &GuestName,
) -> Result<(), ApiError> {
    let Some(person) = caller.person() else {
        return Ok(());
    };
    if previews.may_write(slug, person.login.as_str()).await? {
        return Ok(());
    }
    let message = format!(
        "{} may not write to the repository of '{slug}'",
        person.login
    );
    let remedy =
        "Somebody with write access at GitHub can do this. A new right applies within a minute.";
    Err(ApiError(
        Failure::new(Code::Forbidden, message).with_remedy(remedy),
    ))
}
