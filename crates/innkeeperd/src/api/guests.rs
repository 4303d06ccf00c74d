//! Calls about guests.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use innkeeper_model::api::{Accepted, GuestView};
use serde::Deserialize;

use super::answer::{Answer, Refusal, accepted, body, name};
use super::{Context, Peer};

type Started = Result<(StatusCode, Json<Accepted>), Refusal>;

pub(super) async fn list(State(context): State<Context>) -> Answer<Vec<GuestView>> {
    Ok(Json(context.engine.list().await?))
}

pub(super) async fn show(
    State(context): State<Context>,
    Path(guest): Path<String>,
) -> Answer<GuestView> {
    Ok(Json(context.engine.show(&name(&guest)?).await?))
}

pub(super) async fn create(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Bytes,
) -> Started {
    Ok(accepted(
        context
            .engine
            .create(body(&request)?, &peer.actor())
            .await?,
    ))
}

pub(super) async fn destroy(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(guest): Path<String>,
) -> Started {
    Ok(accepted(
        context
            .engine
            .destroy(&name(&guest)?, &peer.actor())
            .await?,
    ))
}

pub(super) async fn start(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(guest): Path<String>,
) -> Started {
    Ok(accepted(
        context.engine.start(&name(&guest)?, &peer.actor()).await?,
    ))
}

pub(super) async fn stop(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(guest): Path<String>,
) -> Started {
    Ok(accepted(
        context.engine.stop(&name(&guest)?, &peer.actor()).await?,
    ))
}

#[derive(Deserialize)]
pub(super) struct LogQuery {
    #[serde(default = "default_lines")]
    lines: usize,
    #[serde(default)]
    follow: bool,
}

fn default_lines() -> usize {
    100
}

pub(super) async fn logs(
    State(context): State<Context>,
    Path(guest): Path<String>,
    Query(query): Query<LogQuery>,
) -> Result<Response, Refusal> {
    let console = context
        .engine
        .console(&name(&guest)?, query.lines, query.follow)
        .await?;
    let until_stop = console.take_until(context.stopping.clone().cancelled_owned());
    let body = Body::from_stream(until_stop);
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}
