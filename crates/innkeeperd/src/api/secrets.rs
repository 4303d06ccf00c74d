//! Calls about the secrets of repositories. Their responses contain no values.

use axum::Json;
use axum::body::Bytes;
use axum::extract::Path;
use innkeeper_model::preview::secrets::{RepoSecrets, SecretChanged, SetSecret};
use innkeeper_model::preview::{EnvName, InvalidText, RepoName};
use innkeeper_model::{Code, Failure};
use innkeeper_preview::Previews;

use super::previews::AllPreviews;
use super::response::{ApiResult, body};
use super::{Caller, private, visible};
use crate::api_error::ApiError;

pub(super) async fn list(
    AllPreviews(previews): AllPreviews,
    caller: Caller,
    Path((owner, repo)): Path<(String, String)>,
) -> ApiResult<RepoSecrets> {
    let repo = repo_of(&previews, &caller, &owner, &repo).await?;
    Ok(Json(previews.secrets(&repo).await?))
}

pub(super) async fn set(
    AllPreviews(previews): AllPreviews,
    caller: Caller,
    Path((owner, repo, name)): Path<(String, String, String)>,
    request: Bytes,
) -> ApiResult<SecretChanged> {
    let repo = repo_of(&previews, &caller, &owner, &repo).await?;
    let name = EnvName::parse(&name).map_err(|error| invalid(&error))?;
    let SetSecret { value } = body(&request)?;
    let actor = caller.actor();
    let changed = previews.set_secret(&repo, &name, value, &actor);
    Ok(Json(changed.await?))
}

pub(super) async fn remove(
    AllPreviews(previews): AllPreviews,
    caller: Caller,
    Path((owner, repo, name)): Path<(String, String, String)>,
) -> ApiResult<SecretChanged> {
    let repo = repo_of(&previews, &caller, &owner, &repo).await?;
    let name = EnvName::parse(&name).map_err(|error| invalid(&error))?;
    let actor = caller.actor();
    let changed = previews.remove_secret(&repo, &name, &actor);
    Ok(Json(changed.await?))
}

/// Returns the repository in a path, whose secrets the caller may change.
async fn repo_of(
    previews: &Previews,
    caller: &Caller,
    owner: &str,
    repo: &str,
) -> Result<RepoName, ApiError> {
    let repo = RepoName::parse(&format!("{owner}/{repo}")).map_err(|error| invalid(&error))?;
    visible::require_repo(caller, &repo)?;
    private::require_reader(previews, caller, &repo).await?;
    Ok(repo)
}

fn invalid(error: &InvalidText) -> ApiError {
    ApiError(Failure::new(Code::InvalidRequest, error.to_string()))
}
