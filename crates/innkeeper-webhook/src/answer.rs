//! The answers that the contract knows.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use innkeeper_model::GuestName;
use serde_json::json;

/// What GitHub is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The delivery is on disk.
    Accepted(GuestName),
    /// What follows for a repository is on disk.
    Noted,
    /// A new webhook works.
    Pong,
    /// Nothing to do for this event.
    IgnoredEvent(String),
    /// Nothing is done for this repository.
    NotAllowed,
    /// Not signed with a secret of ours.
    InvalidSignature,
    /// No delivery's id as GitHub makes them.
    InvalidDelivery,
    /// No event's name as GitHub makes them.
    InvalidEvent,
    /// A `pull_request` event that is not understood.
    InvalidPayload,
    /// The client already sends as many bodies as one client may.
    TooMany,
    /// The body did not arrive in time.
    TooSlow,
    /// The body is longer than is taken.
    TooLong,
    /// The preview would have a name that others have.
    SlugCollision,
    /// innkeeperd does not answer, or could not write. GitHub shows the delivery as failed.
    Unavailable,
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let error = |status, text: &str| (status, json!({ "error": text }));
        let (status, body) = match self {
            Self::Accepted(slug) => (
                StatusCode::ACCEPTED,
                json!({ "status": "accepted", "slug": slug }),
            ),
            Self::Noted => (StatusCode::ACCEPTED, json!({ "status": "accepted" })),
            Self::Pong => (StatusCode::OK, json!({ "status": "pong" })),
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
