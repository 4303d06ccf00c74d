//! Parts that several calls share: request bodies, names in paths, responses.

use std::io;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use innkeeper_facilities::Console;
use innkeeper_model::preview::log::LogLine;
use innkeeper_model::{Code, Failure, GuestName};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Context;
use crate::api_error::ApiError;

/// A value as JSON, or a failure.
pub(crate) type ApiResult<T> = Result<Json<T>, ApiError>;

/// 202 with a value: the intent is on disk.
pub(crate) fn accepted<T: Serialize>(value: T) -> (StatusCode, Json<T>) {
    (StatusCode::ACCEPTED, Json(value))
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
#[derive(Deserialize)]
pub(crate) struct LogQuery {
    #[serde(default = "default_lines")]
    pub(crate) lines: usize,
    #[serde(default)]
    pub(crate) follow: bool,
}

fn default_lines() -> usize {
    100
}

/// Returns a log as text. A followed log ends when the daemon stops.
pub(crate) fn console(context: &Context, log: Console) -> Response {
    let until_stop = log.take_until(context.stopping.clone().cancelled_owned());
    let body = Body::from_stream(until_stop);
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response()
}

/// Returns a preview's log as JSON, one line of the log on each line. A followed log ends when the daemon stops.
pub(crate) fn log_lines(context: &Context, log: BoxStream<'static, LogLine>) -> Response {
    let lines = log.map(|line| {
        let mut json = serde_json::to_vec(&line).map_err(io::Error::other)?;
        json.push(b'\n');
        Ok::<_, io::Error>(json)
    });
    let until_stop = lines.take_until(context.stopping.clone().cancelled_owned());
    let body = Body::from_stream(until_stop);
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// Parses a guest's name in a path.
pub(crate) fn name(text: &str) -> Result<GuestName, ApiError> {
    GuestName::parse(text)
        .map_err(|error| ApiError(Failure::new(Code::InvalidName, error.to_string())))
}
