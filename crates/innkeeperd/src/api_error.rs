//! Failures as HTTP responses.

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER as RETRY_AFTER_HEADER;
use axum::response::{IntoResponse, Response};
use innkeeper_engine::EngineError;
use innkeeper_model::{Code, Failure};
use innkeeper_preview::PreviewError;
use innkeeper_store::StoreError;
use serde::Serialize;

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

/// The seconds after which a request that was refused for lack of memory should be repeated.
const RETRY_AFTER: &str = "30";

/// The body of a refusal that clients of other products know: the failure, and a field for clients that know none.
#[derive(Serialize)]
struct Refusal {
    error: Code,
    #[serde(flatten)]
    failure: Failure,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self(failure) = self;
        let status = StatusCode::from_u16(failure.code.http_status());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let code = failure.code;
        let refusal = |failure| {
            let error = code;
            Json(Refusal { error, failure })
        };
        let mut response = match code {
            Code::MemoryLow => {
                let headers = [(RETRY_AFTER_HEADER, RETRY_AFTER)];
                (status, headers, refusal(failure)).into_response()
            }
            Code::Unauthorized => (status, refusal(failure)).into_response(),
            _ => (status, Json(failure)).into_response(),
        };
        // For the audit log.
        response.extensions_mut().insert(code);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lack_of_memory_is_refused_with_a_time_to_retry() {
        let error = EngineError::MemoryLow {
            available_percent: 4,
            refused_below: 5,
        };
        let response = ApiError::from(error).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()["retry-after"], "30");
        let body = axum::body::to_bytes(response.into_body(), 1 << 16).await;
        let body = body.expect("a body");
        let fields: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(fields["error"], "memory_low");
        assert_eq!(fields["mem_available_percent"], 4);
        // The programs read a failure.
        let failure: Failure = serde_json::from_slice(&body).expect("a failure");
        assert_eq!(failure.code, Code::MemoryLow);
        assert_eq!(failure.mem_available_percent, Some(4));
        assert!(failure.remedy.is_some());
    }
}
