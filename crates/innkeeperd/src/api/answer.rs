//! Answers: values as JSON, failures with the status of their kind.

use axum::Json;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use innkeeper_engine::EngineError;
use innkeeper_model::{Code, Failure, GuestName};
use innkeeper_store::StoreError;
use serde::Serialize;
use serde::de::DeserializeOwned;

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

/// Reads a guest's name out of a path.
pub(crate) fn name(text: &str) -> Result<GuestName, Refusal> {
    GuestName::parse(text)
        .map_err(|error| Refusal(Failure::new(Code::InvalidName, error.to_string())))
}
