//! Calls about guests.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::{Extension, Json};
use innkeeper_model::api::{Accepted, CreateRequest, GuestView, SetRequest};
use serde::Deserialize;
use utoipa::IntoParams;

use super::agent::Agent;
use super::private::Sight;
use super::response::{ApiResult, Created, LogQuery, accepted, body, console, created_as, name};
use super::{Caller, Context, visible};
use crate::access::Owner;
use crate::api_error::ApiError;
use crate::audit::AuditObject;
use crate::quotas::Wanted;

type Started = Result<(StatusCode, Json<Accepted>), ApiError>;

pub(super) async fn list(
    State(context): State<Context>,
    caller: Caller,
) -> ApiResult<Vec<GuestView>> {
    let mut views = context.engine.list().await?;
    if let Some(repo) = caller.repo() {
        let visible = visible::previews_of(context.engine.store(), repo).await?;
        views.retain(|view| visible.contains(&view.guest.name));
    }
    let hidden = Sight::of(&context).hidden_from(&caller).await?;
    views.retain(|view| !hidden.contains(&view.guest.name));
    let owners = context.tokens.owners().await?;
    for view in &mut views {
        name_owner(view, &owners);
    }
    Ok(Json(views))
}

pub(super) async fn show(
    State(context): State<Context>,
    caller: Caller,
    Path(guest): Path<String>,
) -> ApiResult<GuestView> {
    let name = name(&guest)?;
    visible::require_guest(context.engine.store(), &caller, &name).await?;
    let mut view = context.engine.show(&name).await?;
    name_owner(&mut view, &context.tokens.owners().await?);
    Ok(Json(view))
}

/// Adds the name of a guest's owner.
fn name_owner(view: &mut GuestView, owners: &BTreeMap<String, Owner>) {
    let owner = view.guest.owner.as_ref();
    let owner = owner.and_then(|actor| owners.get(actor));
    view.owner_name = owner.map(|owner| owner.name.clone());
}

pub(super) async fn create(
    State(context): State<Context>,
    caller: Caller,
    request: Bytes,
) -> Created<Accepted> {
    let request: CreateRequest = body(&request)?;
    let wanted = Wanted::new(request.memory, request.cpus);
    let _admitted = context.quotas.admit(&caller, wanted).await?;
    let actor = caller.actor();
    let created = context.engine.create(request, &actor, caller.trust());
    Ok(created_guest(created.await?))
}

pub(super) async fn destroy(
    State(context): State<Context>,
    caller: Caller,
    Agent(guest): Agent,
    Query(how): Query<DestroyQuery>,
) -> Started {
    let actor = caller.actor();
    let destroyed = context.engine.destroy(&guest, how.now, &actor);
    Ok(accepted(destroyed.await?))
}

/// Returns the response to a call that creates a guest.
pub(super) fn created_guest(
    created: Accepted,
) -> (Extension<AuditObject>, (StatusCode, Json<Accepted>)) {
    let guest = created.guest.as_ref().map(ToString::to_string);
    created_as(guest.unwrap_or_default(), accepted(created))
}

/// Options of a destroy.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct DestroyQuery {
    /// Removes the files at once.
    #[serde(default)]
    now: bool,
}

pub(super) async fn start(
    State(context): State<Context>,
    caller: Caller,
    Agent(guest): Agent,
) -> Started {
    Ok(accepted(
        context.engine.start(&guest, &caller.actor()).await?,
    ))
}

pub(super) async fn stop(
    State(context): State<Context>,
    caller: Caller,
    Agent(guest): Agent,
) -> Started {
    Ok(accepted(
        context.engine.stop(&guest, &caller.actor()).await?,
    ))
}

pub(super) async fn pause(
    State(context): State<Context>,
    caller: Caller,
    Agent(guest): Agent,
) -> Started {
    Ok(accepted(
        context.engine.pause(&guest, &caller.actor()).await?,
    ))
}

pub(super) async fn sleep(
    State(context): State<Context>,
    caller: Caller,
    Agent(guest): Agent,
) -> Started {
    Ok(accepted(
        context.engine.sleep(&guest, &caller.actor()).await?,
    ))
}

pub(super) async fn wake(
    State(context): State<Context>,
    caller: Caller,
    Agent(guest): Agent,
) -> Started {
    Ok(accepted(
        context.engine.wake(&guest, &caller.actor()).await?,
    ))
}

pub(super) async fn set(
    State(context): State<Context>,
    caller: Caller,
    Agent(guest): Agent,
    request: Bytes,
) -> Started {
    let request: SetRequest = body(&request)?;
    let present = context.engine.guest(&guest).await?;
    let (actor, trust) = (caller.actor(), caller.trust());
    let _admitted = match present.owner.as_ref() == Some(&actor) {
        true => {
            let wanted = Wanted::instead_of(&present, request.memory, request.cpus);
            context.quotas.admit(&caller, wanted).await?
        }
        // An operator changes another actor's agent.
        false => None,
    };
    let changed = context.engine.set(&guest, request, &actor, trust);
    Ok(accepted(changed.await?))
}

pub(super) async fn logs(
    State(context): State<Context>,
    caller: Caller,
    Agent(guest): Agent,
    Query(query): Query<LogQuery>,
) -> Result<Response, ApiError> {
    let log = context.engine.console(&guest, query.lines, query.follow);
    Ok(console(&context, &caller, log.await?))
}
