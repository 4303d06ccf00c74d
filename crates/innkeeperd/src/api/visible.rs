//! The objects that a caller may see. A token of one repository sees the previews of that repository, with their guests,
//! operations and events, and no others. An object that it may not see is refused exactly as one that does not exist.

use std::collections::BTreeSet;

use innkeeper_engine::EngineError;
use innkeeper_model::access::Role;
use innkeeper_model::preview::RepoName;
use innkeeper_model::{Code, Failure, Guest, GuestName, Operation, OperationId};
use innkeeper_store::{Store, StoreError};

use super::Context;
use super::caller::Caller;
use super::private::Sight;
use crate::api_error::ApiError;

/// Refuses a preview that the caller may not see.
pub(super) async fn require_preview(
    store: &Store,
    caller: &Caller,
    slug: &GuestName,
) -> Result<(), ApiError> {
    match sees(store, caller, slug).await? {
        true => Ok(()),
        false => Err(StoreError::PreviewNotFound { slug: slug.clone() }.into()),
    }
}

/// Refuses a guest that the caller may not see.
pub(super) async fn require_guest(
    store: &Store,
    caller: &Caller,
    name: &GuestName,
) -> Result<(), ApiError> {
    match sees(store, caller, name).await? {
        true => Ok(()),
        false => Err(EngineError::GuestNotFound(name.clone()).into()),
    }
}

/// Returns an operation. Refuses one that the caller may not see, and one that does not exist.
pub(super) async fn require_operation(
    context: &Context,
    caller: &Caller,
    id: OperationId,
) -> Result<Operation, ApiError> {
    let operation = context.engine.operation(id).await?;
    if operation.actor == caller.actor() {
        return Ok(operation);
    }
    let guest = operation.guest.as_ref();
    let of_token = sees_event(context.engine.store(), caller, guest).await?;
    if of_token
        && Sight::of(context)
            .operation(caller, guest, Some(id))
            .await?
    {
        return Ok(operation);
    }
    Err(EngineError::OperationNotFound(id).into())
}

/// Reports whether the caller may see an event of a guest, or of none.
pub(super) async fn sees_event(
    store: &Store,
    caller: &Caller,
    guest: Option<&GuestName>,
) -> Result<bool, StoreError> {
    match guest {
        Some(guest) => sees(store, caller, guest).await,
        None => Ok(caller.repo().is_none()),
    }
}

/// Reports whether the caller may see a guest, or the preview of this name. False for one that does not exist only if the
/// caller is limited to a repository.
async fn sees(store: &Store, caller: &Caller, name: &GuestName) -> Result<bool, StoreError> {
    let Some(repo) = caller.repo() else {
        return Ok(true);
    };
    let preview = store.preview(name).await?;
    Ok(preview.is_some_and(|preview| preview.record.repo == *repo))
}

/// Returns the previews of a repository.
pub(super) async fn previews_of(
    store: &Store,
    repo: &RepoName,
) -> Result<BTreeSet<GuestName>, StoreError> {
    let previews = store.previews().await?.into_iter();
    let of_repo = previews.filter(|preview| preview.record.repo == *repo);
    Ok(of_repo.map(|preview| preview.record.slug).collect())
}

/// Refuses a repository that the caller's token is not for.
pub(super) fn require_repo(caller: &Caller, repo: &RepoName) -> Result<(), ApiError> {
    match caller.repo() {
        Some(own) if own != repo => {
            let message = format!("this token is for the previews of {own} only");
            let failure = Failure::new(Code::Forbidden, message);
            Err(ApiError(failure.with_remedy(format!("Use a token for {repo}: `innkeeper token create NAME --repo {repo}` on the host creates one."))))
        }
        _ => Ok(()),
    }
}

/// Refuses a change of another actor's agent to a developer.
pub(super) fn require_own(caller: &Caller, guest: &Guest) -> Result<(), ApiError> {
    if caller.role() >= Role::Operator || guest.owner.as_ref() == Some(&caller.actor()) {
        return Ok(());
    }
    let name = &guest.name;
    let owner = match &guest.owner {
        Some(owner) => format!("agent '{name}' belongs to {owner}"),
        None => format!("agent '{name}' has no owner"),
    };
    let failure = Failure::new(
        Code::Forbidden,
        format!("{owner}: the role developer changes its own agents only"),
    );
    Err(ApiError(failure.with_remedy(format!(
        "Ask its owner, or use a token of the role operator. `agent show {name}` shows the agent."
    ))))
}
