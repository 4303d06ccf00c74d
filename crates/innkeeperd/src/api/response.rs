//! Parts that several calls share: request bodies, names in paths, responses.

use std::future::ready;
use std::io;
use std::pin::Pin;

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use innkeeper_facilities::Console;
use innkeeper_model::preview::log::LogLine;
use innkeeper_model::{Code, Failure, GuestName};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::{Caller, Context};
use crate::api_error::ApiError;
use crate::audit::AuditObject;

/// A value as JSON, or a failure.
pub(crate) type ApiResult<T> = Result<Json<T>, ApiError>;

/// 202 with a value: the intent is on disk.
pub(crate) fn accepted<T: Serialize>(value: T) -> (StatusCode, Json<T>) {
    (StatusCode::ACCEPTED, Json(value))
}

/// The response to a call that creates something, with its name for the audit log.
pub(crate) type Created<T> = Result<(Extension<AuditObject>, (StatusCode, Json<T>)), ApiError>;

/// Adds the name of a created object to a response, for the audit log.
pub(crate) fn created_as<T>(
    object: String,
    response: (StatusCode, Json<T>),
) -> (Extension<AuditObject>, (StatusCode, Json<T>)) {
    (Extension(AuditObject(object)), response)
}

/// Parses a request's body. An empty one counts as `{}`.
pub(crate) fn body<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, ApiError> {
    let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(bytes).map_err(|error| {
        ApiError(Failure::new(
            Code::InvalidRequest,
            format!("the request cannot be read: {error}"),
        ))
    })
}

/// The requested part of a log.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LogQuery {
    /// The number of lines before new ones; 100 when omitted.
    #[serde(default = "default_lines")]
    pub(crate) lines: usize,
    /// True to receive new lines too.
    #[serde(default)]
    pub(crate) follow: bool,
}

fn default_lines() -> usize {
    100
}

/// Returns a log as text. It breaks off when the daemon stops, or with the caller's rights.
pub(crate) fn console(context: &Context, caller: &Caller, log: Console) -> Response {
    let body = Body::from_stream(until(end(context, caller), log));
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response()
}

/// Returns a stream with an error at `end`, so that the response breaks off: no client takes a part of a log for the whole.
fn until<T>(
    end: impl Future<Output = ()>,
    log: impl Stream<Item = io::Result<T>>,
) -> impl Stream<Item = io::Result<T>> {
    let whole = log.map(Some).chain(stream::once(ready(None)));
    let broken = stream::once(end).map(|()| {
        let reason = "the daemon stops, or the caller's rights have ended";
        Some(Err(io::Error::other(reason)))
    });
    stream::select(whole, broken).scan((), |(), item| ready(item))
}

/// Returns the end of a caller's stream: the daemon stops, or the caller's rights have ended.
pub(crate) fn end(context: &Context, caller: &Caller) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let (stopping, ended) = (context.stopping.clone().cancelled_owned(), caller.ended());
    Box::pin(async move {
        tokio::select! {
            () = stopping => {}
            () = ended => {}
        }
    })
}

/// Returns a preview's log as JSON, one line of the log on each line. It breaks off as that of [`console`].
pub(crate) fn log_lines(
    context: &Context,
    caller: &Caller,
    log: BoxStream<'static, LogLine>,
) -> Response {
    let lines = log.map(|line| {
        let mut json = serde_json::to_vec(&line).map_err(io::Error::other)?;
        json.push(b'\n');
        Ok::<_, io::Error>(json)
    });
    let body = Body::from_stream(until(end(context, caller), lines));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// Parses a guest's name in a path.
pub(crate) fn name(text: &str) -> Result<GuestName, ApiError> {
    GuestName::parse(text)
        .map_err(|error| ApiError(Failure::new(Code::InvalidName, error.to_string())))
}
