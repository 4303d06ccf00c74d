//! Answers: values as JSON, failures with the status of their kind.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use innkeeper_engine::EngineError;
use innkeeper_host::facilities::Console;
use innkeeper_model::{Code, Failure, GuestName};
use innkeeper_preview::PreviewError;
use innkeeper_store::StoreError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Context;

/// A failure as an answer.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) Failure);

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        Self(Failure::from(&error))
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self(Failure::from(&error))
    }
}

impl From<PreviewError> for Refusal {
    fn from(error: PreviewError) -> Self {
        Self(Failure::from(&error))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.code.kind().http_status());
        (
            status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            Json(self.0),
        )
            .into_response()
    }
}

/// A value, or a failure.
pub(crate) type Answer<T> = Result<Json<T>, Refusal>;

/// 202 with a value: the intent is on disk.
pub(crate) fn accepted<T: Serialize>(value: T) -> (StatusCode, Json<T>) {
    (StatusCode::ACCEPTED, Json(value))
}

/// Reads a request's body. An empty one counts as `{}`.
pub(crate) fn body<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, Refusal> {
    let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(bytes).map_err(|error| {
        Refusal(Failure::new(
            Code::InvalidRequest,
            format!("the request cannot be read: {error}"),
        ))
    })
}

/// How much of a log is wanted.
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

/// A log as text. One that goes on ends with the daemon.
pub(crate) fn console(context: &Context, log: Console) -> Response {
    let until_stop = log.take_until(context.stopping.clone().cancelled_owned());
    let body = Body::from_stream(until_stop);
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response()
}

/// Reads a guest's name out of a path.
pub(crate) fn name(text: &str) -> Result<GuestName, Refusal> {
    GuestName::parse(text)
        .map_err(|error| Refusal(Failure::new(Code::InvalidName, error.to_string())))
}
