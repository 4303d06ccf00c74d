//! Responses of the gateway itself.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use innkeeper_model::{Code, Failure};
use serde::Serialize;

/// The seconds after which a request should be repeated that found no innkeeperd: the time of its restart.
const RETRY_SECONDS: u64 = 2;

/// A request that the gateway does not pass on, or whose response it does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It has no valid token.
    Unauthorized,
    /// It has the cookie of a session, and no page of this host made it.
    CrossSite,
    /// Its preview is not public, and it has no valid pass or token of it.
    NoPass,
    /// Too many requests of its address had none.
    TooManyFailures(Duration),
    /// Too many requests of its address, or of all together, are in progress.
    TooManyRequests,
    /// Its URL is not of the API.
    NotFound,
    /// Its body did not arrive in time.
    TooSlow,
    /// innkeeperd does not respond.
    Unavailable,
}

/// The body of a refusal: the failure, and a field for clients that know none.
#[derive(Serialize)]
struct Fields {
    error: Code,
    #[serde(flatten)]
    failure: Failure,
}

impl Refusal {
    fn failure(self) -> Failure {
        let (code, message, remedy) = match self {
            Self::Unauthorized => (
                Code::Unauthorized,
                "the request has no valid token",
                "Send `Authorization: Bearer <token>`, with a token of `innkeeper token create`.",
            ),
            Self::CrossSite => (
                Code::Forbidden,
                "the request has the cookie of a session, and did not come from a page of this host",
                "Send the headers Origin and X-Innkeeper-CSRF from a page of this host, or use a token.",
            ),
            Self::NoPass => (
                Code::Unauthorized,
                "the preview is not public, and the request has no valid pass or token of it",
                "Open the preview in a browser, or send `X-Innkeeper-Bypass: <token>` with a token of `preview token`. Tokens of the API are not accepted here.",
            ),
            Self::TooManyFailures(_) => (
                Code::TooManyFailures,
                "too many requests of this address had no valid token",
                "Wait as long as the header Retry-After says, and check the token before you try again.",
            ),
            Self::TooManyRequests => (
                Code::TooManyRequests,
                "too many requests of this address, or of all together, are in progress",
                "End some of them, such as `logs --follow` or port forwarding, then try again.",
            ),
            Self::NotFound => (
                Code::InvalidRequest,
                "this URL is not part of the API",
                "Check the URL: the paths of the API begin with /v1/.",
            ),
            Self::TooSlow => (
                Code::TimedOut,
                "the request did not arrive in time",
                "Check the connection, then try again.",
            ),
            Self::Unavailable => (
                Code::DaemonUnavailable,
                "innkeeperd does not respond",
                "Try again in a moment: it may be restarting. On the host, `systemctl status innkeeper` shows its state.",
            ),
        };
        Failure::new(code, message).with_remedy(remedy)
    }

    fn status(self) -> StatusCode {
        match self {
            Self::Unauthorized | Self::NoPass => StatusCode::UNAUTHORIZED,
            Self::CrossSite => StatusCode::FORBIDDEN,
            Self::TooManyFailures(_) | Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Returns the seconds of the header Retry-After.
    fn retry_after(self) -> Option<u64> {
        match self {
            Self::TooManyFailures(wait) => Some(wait.as_secs().max(1)),
            Self::TooManyRequests | Self::Unavailable => Some(RETRY_SECONDS),
            Self::Unauthorized
            | Self::CrossSite
            | Self::NoPass
            | Self::NotFound
            | Self::TooSlow => None,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response<Body> {
        let failure = self.failure();
        let error = failure.code;
        let mut response = (self.status(), Json(Fields { error, failure })).into_response();
        let headers = response.headers_mut();
        if matches!(self, Self::Unauthorized | Self::NoPass) {
            let scheme = HeaderValue::from_static("Bearer");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
