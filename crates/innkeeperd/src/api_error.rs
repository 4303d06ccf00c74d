//! Failures as HTTP responses.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use innkeeper_engine::EngineError;
use innkeeper_model::Failure;
use innkeeper_preview::PreviewError;
use innkeeper_store::StoreError;

/// A failure as a response, with the status of its kind.
#[derive(Debug)]
pub(crate) struct ApiError(pub(crate) Failure);

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        Self(Failure::from(&error))
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self(Failure::from(&error))
    }
}

impl From<PreviewError> for ApiError {
    fn from(error: PreviewError) -> Self {
        Self(Failure::from(&error))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.code.kind().http_status());
        (
            status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            Json(self.0),
        )
            .into_response()
    }
}
