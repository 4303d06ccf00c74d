//! Previews that a person may not see: private ones, and those of private repositories, without read access to the repository
//! at GitHub. One that a person may not see is refused exactly as one that does not exist. Programs with tokens see all.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use innkeeper_engine::{Engine, EngineError};
use innkeeper_github::client::GithubError;
use innkeeper_model::preview::{RepoName, parse_existing_slug};
use innkeeper_model::{Code, Failure, GuestName, OperationId};
use innkeeper_preview::{PreviewError, Previews};
use innkeeper_store::{Delivery, StoreError};

use super::Context;
use super::caller::Caller;
use crate::api_error::ApiError;

/// The object that the path of a call names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// A preview.
    Preview,
    /// A preview whose visibility is asked for, as the gateway does for each visitor of one that is not public.
    VisitedPreview,
    /// An agent, or the guest of a preview.
    Guest,
    /// Nothing that may be hidden from a person.
    Other,
}

impl Named {
    /// Returns the object of a call.
    pub(super) fn of(method: &str, path: &str) -> Self {
        match path {
            "/v1/previews/{slug}/visibility" if method == "GET" => Self::VisitedPreview,
            _ if path.starts_with("/v1/previews/{slug}") => Self::Preview,
            _ if path.starts_with("/v1/guests/{name}") => Self::Guest,
            _ => Self::Other,
        }
    }
}

/// Refuses a person a call whose path names a preview, or its guest, that they may not see or that does not exist.
pub(super) async fn check(
    State((sight, named)): State<(Sight, Named)>,
    parameters: RawPathParams,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let caller = request.extensions().get::<Caller>().cloned();
    let person = caller.as_ref().and_then(Caller::person);
    if let Some(person) = person {
        let value = |name: &str| parameters.iter().find(|(key, _)| *key == name);
        // Its handler refuses a text that is no name.
        let slug = value("slug").and_then(|(_, text)| parse_existing_slug(text).ok());
        let name = value("name").and_then(|(_, text)| GuestName::parse(text).ok());
        sight
            .require(named, slug.or(name), person.login.as_str())
            .await?;
    }
    Ok(next.run(request).await)
}

/// Decides which previews a person may see.
#[derive(Clone)]
pub(super) struct Sight {
    engine: Engine,
    previews: Option<Previews>,
}

impl Sight {
    pub(super) fn of(context: &Context) -> Self {
        Self {
            engine: context.engine.clone(),
            previews: context.previews.clone(),
        }
    }

    async fn require(
        &self,
        named: Named,
        name: Option<GuestName>,
        login: &str,
    ) -> Result<(), ApiError> {
        let (Some(previews), Some(name)) = (&self.previews, name) else {
            return Ok(());
        };
        match named {
            Named::Preview if !previews.may_see(&name, login).await? => {
                Err(StoreError::PreviewNotFound { slug: name }.into())
            }
            Named::VisitedPreview if !previews.may_visit(&name, login).await? => {
                Err(StoreError::PreviewNotFound { slug: name }.into())
            }
            Named::Guest if !self.sees_guest(previews, &name, login).await? => {
                Err(EngineError::GuestNotFound(name).into())
            }
            _ => Ok(()),
        }
    }

    /// Reports whether a person may see a guest or a preview that exists.
    async fn sees_guest(
        &self,
        previews: &Previews,
        name: &GuestName,
        login: &str,
    ) -> Result<bool, ApiError> {
        let store = self.engine.store();
        if store.preview(name).await?.is_some() {
            return Ok(previews.may_see(name, login).await?);
        }
        Ok(store.guest(name).await?.is_some())
    }

    /// Reports whether a caller may see an operation or its events. A person sees those of agents and previews that exist, and
    /// those that they requested: the guest of others may have been that of a preview, and what concerns no guest, such as a
    /// build, may name a repository.
    pub(super) async fn operation(
        &self,
        caller: &Caller,
        guest: Option<&GuestName>,
        operation: Option<OperationId>,
    ) -> Result<bool, ApiError> {
        let (Some(person), Some(previews)) = (caller.person(), &self.previews) else {
            return Ok(true);
        };
        if let Some(guest) = guest
            && self
                .sees_guest(previews, guest, person.login.as_str())
                .await?
        {
            return Ok(true);
        }
        let store = self.engine.store();
        let operation = match operation {
            Some(id) => store.operation(id).await?,
            None => None,
        };
        Ok(operation.is_some_and(|operation| operation.actor == caller.actor()))
    }

    /// Returns the previews that a caller may not see, for lists.
    pub(super) async fn hidden_from(
        &self,
        caller: &Caller,
    ) -> Result<BTreeSet<GuestName>, ApiError> {
        match (&self.previews, caller.person()) {
            (Some(previews), Some(person)) => {
                Ok(previews.hidden_from(person.login.as_str()).await?)
            }
            _ => Ok(BTreeSet::new()),
        }
    }

    /// Leaves out the deliveries of repositories that a person may not read.
    pub(super) async fn readable(
        &self,
        caller: &Caller,
        mut deliveries: Vec<Delivery>,
    ) -> Vec<Delivery> {
        let (Some(previews), Some(person)) = (&self.previews, caller.person()) else {
            return deliveries;
        };
        let mut readable: BTreeMap<RepoName, bool> = BTreeMap::new();
        for delivery in &deliveries {
            let repo = &delivery.event.pull_request().repo;
            if !readable.contains_key(repo) {
                let may = previews.may_read_or_all(repo, person.login.as_str());
                readable.insert(repo.clone(), may.await);
            }
        }
        deliveries.retain(|delivery| readable[&delivery.event.pull_request().repo]);
        deliveries
    }
}

/// Refuses a person without read access to a repository, as GitHub does: one that does not exist is refused in the same way.
pub(super) async fn require_reader(
    previews: &Previews,
    caller: &Caller,
    repo: &RepoName,
) -> Result<(), ApiError> {
    let Some(person) = caller.person() else {
        return Ok(());
    };
    if previews.may_read_or_all(repo, person.login.as_str()).await {
        return Ok(());
    }
    let error = GithubError::RepoNotAccessible(repo.clone());
    Err(PreviewError::from(error).into())
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
