//! Calls about previews.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, FromRequestParts, Path, Query, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use innkeeper_model::api::{Accepted, GuestView};
use innkeeper_model::preview::api::{PreviewAccepted, PreviewExplanation};
use innkeeper_model::preview::{PreviewView, parse_slug};
use innkeeper_model::{Code, Failure, GuestName};
use innkeeper_preview::Previews;

use super::answer::{Answer, LogQuery, Refusal, accepted, body, console};
use super::{Context, Peer};

type Started = Result<(StatusCode, Json<PreviewAccepted>), Refusal>;

/// The previews of this host. Where none are configured, every call is refused with what to configure.
pub(super) struct All(Previews);

impl FromRequestParts<Context> for All {
    type Rejection = Refusal;

    async fn from_request_parts(_: &mut Parts, context: &Context) -> Result<Self, Refusal> {
        context.previews.clone().map(Self).ok_or_else(|| {
            let message = "this host makes no previews: they have no domain";
            let remedy = "Set previews.domain in innkeeperd's configuration and restart innkeeperd; docs/previews.md says what else previews need.";
            Refusal(Failure::new(Code::InvalidConfig, message).with_remedy(remedy))
        })
    }
}

/// The preview that a call is about: the previews of this host, and its slug. Whether there is one is not known.
pub(super) struct One(pub(super) Previews, pub(super) GuestName);

impl FromRequestParts<Context> for One {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Refusal> {
        let All(previews) = All::from_request_parts(parts, context).await?;
        let Path(slug) = Path::<String>::from_request_parts(parts, context)
            .await
            .map_err(|error| Refusal(Failure::new(Code::InvalidRequest, error.to_string())))?;
        let slug = parse_slug(&slug).map_err(|error| Refusal(Failure::from(&error)))?;
        Ok(Self(previews, slug))
    }
}

pub(super) async fn list(All(previews): All) -> Answer<Vec<PreviewView>> {
    Ok(Json(previews.list().await?))
}

pub(super) async fn create(
    All(previews): All,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Bytes,
) -> Started {
    Ok(accepted(
        previews.create(body(&request)?, &peer.actor()).await?,
    ))
}

pub(super) async fn build(
    All(previews): All,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Bytes,
) -> Result<(StatusCode, Json<Accepted>), Refusal> {
    Ok(accepted(
        previews.build(body(&request)?, &peer.actor()).await?,
    ))
}

pub(super) async fn show(One(previews, slug): One) -> Answer<PreviewView> {
    Ok(Json(previews.show(&slug).await?))
}

pub(super) async fn destroy(
    One(previews, slug): One,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> Started {
    Ok(accepted(previews.destroy(&slug, &peer.actor()).await?))
}

pub(super) async fn update(
    One(previews, slug): One,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> Started {
    Ok(accepted(previews.update(&slug, &peer.actor()).await?))
}

pub(super) async fn guest(One(previews, slug): One) -> Answer<GuestView> {
    Ok(Json(previews.guest(&slug).await?))
}

pub(super) async fn start(
    One(previews, slug): One,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> Result<(StatusCode, Json<Accepted>), Refusal> {
    Ok(accepted(previews.start_guest(&slug, &peer.actor()).await?))
}

pub(super) async fn stop(
    One(previews, slug): One,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> Result<(StatusCode, Json<Accepted>), Refusal> {
    Ok(accepted(previews.stop_guest(&slug, &peer.actor()).await?))
}

pub(super) async fn approve(
    One(previews, slug): One,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Bytes,
) -> Started {
    Ok(accepted(
        previews
            .approve(&slug, body(&request)?, &peer.actor())
            .await?,
    ))
}

pub(super) async fn reset_database(
    One(previews, slug): One,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> Started {
    Ok(accepted(
        previews.reset_database(&slug, &peer.actor()).await?,
    ))
}

pub(super) async fn explain(One(previews, slug): One) -> Answer<PreviewExplanation> {
    Ok(Json(previews.explain(&slug).await?))
}

pub(super) async fn logs(
    One(previews, slug): One,
    State(context): State<Context>,
    Query(query): Query<LogQuery>,
) -> Result<Response, Refusal> {
    let log = previews.logs(&slug, query.lines, query.follow).await?;
    Ok(console(&context, log))
}
