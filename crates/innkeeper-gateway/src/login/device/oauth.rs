//! The bodies of requests and responses of the device flow (RFC 8628), for machines.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use innkeeper_model::access::SessionView;
use serde::{Deserialize, Serialize};

/// The only client: the program `innkeeper`.
const CLIENT: &str = "innkeeper";

/// The grant type of the device flow.
const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// A request for codes.
#[derive(Deserialize)]
pub(super) struct AuthorizationRequest {
    client_id: String,
    /// The machine's name.
    pub(super) machine: String,
}

impl AuthorizationRequest {
    pub(super) fn check(&self) -> Result<(), OauthError> {
        check_client(&self.client_id)
    }
}

/// The codes.
#[derive(Serialize)]
pub(super) struct Authorization {
    pub(super) device_code: String,
    pub(super) user_code: String,
    pub(super) verification_uri: String,
    pub(super) verification_uri_complete: String,
    /// In seconds.
    pub(super) expires_in: u64,
    /// In seconds.
    pub(super) interval: u64,
}

/// A poll for the session.
#[derive(Deserialize)]
pub(super) struct TokenRequest {
    client_id: String,
    grant_type: String,
    pub(super) device_code: String,
}

impl TokenRequest {
    pub(super) fn check(&self) -> Result<(), OauthError> {
        check_client(&self.client_id)?;
        match self.grant_type == GRANT_TYPE {
            true => Ok(()),
            false => Err(OauthError::UnsupportedGrantType),
        }
    }
}

/// The session. It has no `Debug`, so that the token cannot get into a log.
#[derive(Serialize)]
pub(super) struct Granted {
    pub(super) access_token: String,
    pub(super) token_type: &'static str,
    /// In seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires_in: Option<i64>,
    /// The session as its owner sees it, beyond the RFC.
    pub(super) session: SessionView,
}

/// An error of OAuth (RFC 6749, section 5.2; RFC 8628, section 3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OauthError {
    InvalidRequest(&'static str),
    InvalidClient,
    UnsupportedGrantType,
    /// No request has the device code.
    InvalidGrant,
    AuthorizationPending,
    SlowDown,
    AccessDenied,
    ExpiredToken,
}

fn check_client(client: &str) -> Result<(), OauthError> {
    match client == CLIENT {
        true => Ok(()),
        false => Err(OauthError::InvalidClient),
    }
}

impl OauthError {
    fn parts(self) -> (&'static str, &'static str) {
        match self {
            Self::InvalidRequest(problem) => ("invalid_request", problem),
            Self::InvalidClient => ("invalid_client", "client_id must be innkeeper"),
            Self::UnsupportedGrantType => (
                "unsupported_grant_type",
                "grant_type must be urn:ietf:params:oauth:grant-type:device_code",
            ),
            Self::InvalidGrant => (
                "invalid_grant",
                "no request has this device code, or its session was handed out",
            ),
            Self::AuthorizationPending => (
                "authorization_pending",
                "nobody has decided about this machine yet",
            ),
            Self::SlowDown => ("slow_down", "wait five seconds longer between two requests"),
            Self::AccessDenied => ("access_denied", "the person refused this machine"),
            Self::ExpiredToken => ("expired_token", "nobody decided about this machine in time"),
        }
    }
}

impl IntoResponse for OauthError {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Fields {
            error: &'static str,
            error_description: &'static str,
        }
        let (error, error_description) = self.parts();
        let fields = Fields {
            error,
            error_description,
        };
        (StatusCode::BAD_REQUEST, Json(fields)).into_response()
    }
}
