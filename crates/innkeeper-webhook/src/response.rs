//! The responses of the contract.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use innkeeper_model::GuestName;
use innkeeper_model::preview::HookProblem;
use serde_json::json;

/// A response to GitHub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WebhookResponse {
    /// The delivery is on disk.
    Accepted(GuestName),
    /// The consequence of a repository event is on disk.
    Noted,
    /// A redelivery, whose first delivery was processed.
    Duplicate(GuestName),
    /// The webhook works. With its wrong settings.
    Pong(Vec<HookProblem>),
    /// The event needs no action.
    IgnoredEvent(String),
    /// The repository is not allowed.
    NotAllowed,
    /// The signature matches none of the secrets.
    InvalidSignature,
    /// The delivery's id is malformed.
    InvalidDelivery,
    /// The event's name is malformed.
    InvalidEvent,
    /// A `pull_request` event cannot be parsed.
    InvalidPayload,
    /// The client already sends the maximum number of bodies.
    TooMany,
    /// The body did not arrive in time.
    TooSlow,
    /// The body is too long.
    TooLong,
    /// All names for the preview are taken.
    SlugCollision,
    /// innkeeperd does not answer, or could not write. GitHub shows the delivery as failed.
    Unavailable,
}

impl IntoResponse for WebhookResponse {
    fn into_response(self) -> Response {
        let error = |status, text: &str| (status, json!({ "error": text }));
        let (status, body) = match self {
            Self::Accepted(slug) => (
                StatusCode::ACCEPTED,
                json!({ "status": "accepted", "slug": slug }),
            ),
            Self::Noted => (StatusCode::ACCEPTED, json!({ "status": "accepted" })),
            Self::Duplicate(slug) => (
                StatusCode::ACCEPTED,
                json!({ "status": "duplicate", "slug": slug }),
            ),
            Self::Pong(problems) if problems.is_empty() => {
                (StatusCode::OK, json!({ "status": "pong" }))
            }
            Self::Pong(problems) => (
                StatusCode::OK,
                json!({ "status": "pong", "problems": problems }),
            ),
            Self::IgnoredEvent(event) => (
                StatusCode::OK,
                json!({ "status": "ignored", "event": event }),
            ),
            Self::NotAllowed => (
                StatusCode::OK,
                json!({ "status": "ignored", "reason": "not_allowed" }),
            ),
            Self::InvalidSignature => error(StatusCode::UNAUTHORIZED, "Invalid signature"),
            Self::InvalidDelivery => error(StatusCode::BAD_REQUEST, "Invalid delivery id"),
            Self::InvalidEvent => error(StatusCode::BAD_REQUEST, "Invalid event"),
            Self::InvalidPayload => error(StatusCode::BAD_REQUEST, "Invalid pull_request payload"),
            Self::TooMany => error(StatusCode::TOO_MANY_REQUESTS, "Too many requests"),
            Self::TooSlow => error(StatusCode::REQUEST_TIMEOUT, "Request timeout"),
            Self::TooLong => error(StatusCode::PAYLOAD_TOO_LARGE, "Payload too large"),
            Self::SlugCollision => error(StatusCode::INTERNAL_SERVER_ERROR, "slug_collision"),
            Self::Unavailable => error(StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        (status, Json(body)).into_response()
    }
}
