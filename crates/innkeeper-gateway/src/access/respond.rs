//! Responses to visitors.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use innkeeper_model::access::USER_HEADER;
use innkeeper_model::{Code, Failure};

use super::decide::Verdict;
use super::page::Page;
use crate::headers::protect;
use crate::refuse::Refusal;

/// The header with the name of another program's visitor. It is a contract.
const EXTERNAL_USER: HeaderName = HeaderName::from_static(USER_HEADER);

/// Returns the response to a decision. `is_page` chooses between a page and a failure for programs.
pub(crate) fn respond(verdict: Verdict, is_page: bool) -> Response {
    let mut response = match verdict {
        Verdict::Pass(visitor) => pass(visitor),
        Verdict::Go {
            location, cookie, ..
        } => go(&location, cookie),
        Verdict::Unauthorized if is_page => Page::Unauthorized.into_response(),
        Verdict::Expired if is_page => Page::Expired.into_response(),
        Verdict::Unavailable if is_page => Page::Unavailable.into_response(),
        Verdict::Unauthorized | Verdict::Expired => unauthorized(),
        Verdict::Unavailable => Refusal::Unavailable.into_response(),
        Verdict::NoRelay(problem) => {
            let failure = Failure::new(Code::InvalidRequest, problem.to_string())
                .with_remedy("Correct the app's settings: docs/remote.md, OAuth inside previews.");
            (StatusCode::BAD_REQUEST, Json(failure)).into_response()
        }
        Verdict::Invalid => {
            let failure = Failure::new(
                Code::InvalidRequest,
                "the request's host or path is invalid",
            )
            .with_remedy("Check the URL.");
            (StatusCode::BAD_REQUEST, Json(failure)).into_response()
        }
    };
    protect(response.headers_mut());
    response
}

fn pass(visitor: Option<HeaderValue>) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Some(visitor) = visitor {
        response.headers_mut().insert(EXTERNAL_USER, visitor);
    }
    response
}

/// Sends a browser elsewhere. The URL may have a code, which no other site is to see.
pub(crate) fn go(location: &str, cookie: Option<HeaderValue>) -> Response {
    let Ok(location) = HeaderValue::try_from(location) else {
        return Refusal::Unavailable.into_response();
    };
    let mut response = StatusCode::FOUND.into_response();
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location);
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    if let Some(cookie) = cookie {
        headers.insert(header::SET_COOKIE, cookie);
    }
    protect(headers);
    response
}

fn unauthorized() -> Response {
    Refusal::NoPass.into_response()
}
