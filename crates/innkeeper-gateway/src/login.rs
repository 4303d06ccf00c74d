//! Logins of people in a browser, and of their machines (`device`).
//!
//! ```text
//! browser ── GET /login ──► cookie with a random seed; 302 to GitHub with its state and challenge
//!            GitHub's page ──► 302 to /login/callback?code=…&state=…
//!            GET /login/callback ──► the seed's state? innkeeperd exchanges the code, and decides
//!                 └─► cookie of the session; 302 to the page that the login began at
//! ```
//!
//! The gateway has no secret of GitHub and no network: innkeeperd completes the login. The seed binds the end of a login to
//! the browser that began it; the state and PKCE's verifier are digests of it.

mod device;
mod page;
mod seed;
mod talk;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing};
use innkeeper_model::access::{Actor, CreatedSession, SessionView, TokenText};
use innkeeper_model::{Code, Failure};
use innkeeper_service::server::Link;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::browser;
use crate::receive::{self, Context};
use crate::refuse::Refusal;
use crate::session::{self, COOKIE, set_cookie};
pub(crate) use device::Requests;
use page::Page;
use seed::Seed;

/// The time that a person has for GitHub's page, in seconds.
const LOGIN_SECONDS: u64 = 15 * 60;

/// The maximum length of the form's body, in bytes.
const MAX_FORM: usize = 1024;

/// The page that a login without another one ends at.
const HOME: &str = "/login";

#[derive(Deserialize)]
struct Begin {
    r#return: Option<String>,
}

#[derive(Deserialize)]
struct Callback {
    code: Option<String>,
    state: Option<String>,
}

/// The response to `GET /v1/session`, for pages of this host.
#[derive(Serialize)]
struct OwnSession {
    #[serde(flatten)]
    session: SessionView,
    /// The token for the header `X-Innkeeper-CSRF`.
    csrf: String,
}

/// Returns the routes of logins.
pub(crate) fn router(context: Arc<Context>) -> Router {
    let session = routing::get(show).fallback(receive::respond);
    Router::new()
        .route("/login", routing::get(begin))
        .route("/login/callback", routing::get(finish))
        .route("/login/device", routing::post(device::begin))
        .route("/login/token", routing::post(device::poll))
        .route("/logout", routing::post(log_out))
        .route(
            device::PATH,
            routing::get(device::show).post(device::decide),
        )
        .route("/v1/session", session)
        .layer(map_response(receive::protected))
        .with_state(context)
}

/// Sends a browser to GitHub, or shows who has logged in.
async fn begin(
    State(context): State<Arc<Context>>,
    headers: HeaderMap,
    Query(query): Query<Begin>,
) -> Response {
    let source = context.source(&headers);
    let home = query.r#return.as_deref().filter(|path| is_local(path));
    if let Some((session, _)) = current(&context, &headers) {
        return match home {
            Some(path) => go(path, &[]),
            None => match context.session_view(&session, source).await {
                Ok(view) => Page::LoggedIn {
                    login: view.person.login.to_string(),
                    role: view.role.as_str(),
                    csrf: browser::csrf_token(&session),
                }
                .into_response(),
                Err(failure) => Page::of(&failure).into_response(),
            },
        };
    }
    let seed = match Seed::new(home.unwrap_or(HOME)) {
        Ok(seed) => seed,
        Err(failure) => return Page::of(&failure).into_response(),
    };
    let page = context.begin_login(&seed, source).await;
    match (
        page,
        set_cookie(seed::COOKIE, &seed.cookie(), LOGIN_SECONDS),
    ) {
        (Ok(page), Some(cookie)) => go(&page.url, &[cookie]),
        (Ok(_), None) => Page::of(&unavailable()).into_response(),
        (Err(failure), _) => Page::of(&failure).into_response(),
    }
}

/// Completes a login that this browser began.
async fn finish(
    State(context): State<Arc<Context>>,
    headers: HeaderMap,
    Query(query): Query<Callback>,
) -> Response {
    let source = context.source(&headers);
    let seed = session::cookie(&headers, seed::COOKIE).and_then(Seed::parse);
    let state = query.state.unwrap_or_default();
    let (Some(seed), Some(code)) = (seed.filter(|seed| seed.has_state(&state)), query.code) else {
        return Page::of(&other_browser()).into_response();
    };
    if let Err(refusal) = context.admit_login(source) {
        return refusal.into_response();
    }
    let created: CreatedSession = match context.finish_login(&seed, code, source).await {
        Ok(created) => created,
        Err(failure) => {
            context.count_failed_login(source);
            return Page::of(&failure).into_response();
        }
    };
    let end = created.session.expires_at.unwrap_or(Timestamp::UNIX_EPOCH);
    let lifetime = end.duration_since(Timestamp::now()).as_secs();
    let lifetime = u64::try_from(lifetime).unwrap_or(0);
    let cookies = [
        set_cookie(COOKIE, &created.token, lifetime),
        set_cookie(seed::COOKIE, "", 0),
    ];
    match cookies.into_iter().collect::<Option<Vec<_>>>() {
        Some(cookies) => go(seed.home(), &cookies),
        None => Page::of(&unavailable()).into_response(),
    }
}

/// Ends the session. The form on our page has the CSRF token.
async fn log_out(State(context): State<Arc<Context>>, headers: HeaderMap, body: Body) -> Response {
    let form = match context.read_form(body, MAX_FORM).await {
        Ok(form) => form,
        Err(response) => return response,
    };
    // The token has no characters that forms encode.
    let csrf = std::str::from_utf8(&form).unwrap_or_default();
    let csrf = csrf.strip_prefix("csrf=").unwrap_or_default();
    let source = context.source(&headers);
    if let Some(session) = session::of(&headers) {
        let is_own =
            browser::is_same_origin(&Method::POST, &headers) && browser::is_token(csrf, &session);
        if !is_own {
            return Page::of(&cross_site()).into_response();
        }
        if let Some((_, actor)) = current(&context, &headers)
            && let Err(failure) = context.end_session(&actor, source).await
        {
            return Page::of(&failure).into_response();
        }
    }
    let mut response = Page::LoggedOut.into_response();
    if let Some(cookie) = set_cookie(COOKIE, "", 0) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// Returns the browser's session with its CSRF token. Requests with a token of their own are the API's.
async fn show(
    State(context): State<Arc<Context>>,
    link: Extension<Link>,
    request: Request,
) -> Response {
    let headers = request.headers();
    if headers.contains_key(header::AUTHORIZATION) {
        return receive::respond(State(context), link, request).await;
    }
    let source = context.source(headers);
    let Some((session, _)) = current(&context, headers) else {
        return context.deny(source).into_response();
    };
    if !browser::is_same_origin(&Method::GET, headers) {
        return Refusal::CrossSite.into_response();
    }
    match context.session_view(&session, source).await {
        Ok(view) => Json(OwnSession {
            csrf: browser::csrf_token(&session),
            session: view,
        })
        .into_response(),
        Err(failure) => {
            let status = StatusCode::from_u16(failure.code.http_status());
            let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, Json(failure)).into_response()
        }
    }
}

/// Returns the valid session of a browser, with its actor.
fn current(context: &Context, headers: &HeaderMap) -> Option<(TokenText, Actor)> {
    let session = session::of(headers)?;
    let is_valid = context.credentials.accepts(&session).unwrap_or(false);
    let actor = Actor::Token(session.id());
    is_valid.then_some((session, actor))
}

/// Reports whether a text is a path on this host, which no browser takes for another host's.
fn is_local(path: &str) -> bool {
    let visible = |b: u8| b.is_ascii_graphic() && b != b'\\';
    path.starts_with('/')
        && !path.starts_with("//")
        && path.len() <= 2048
        && path.bytes().all(visible)
}

fn go(location: &str, cookies: &[HeaderValue]) -> Response {
    let Ok(location) = HeaderValue::try_from(location) else {
        return Page::of(&unavailable()).into_response();
    };
    let mut response = (StatusCode::FOUND, [(header::LOCATION, location)]).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    for cookie in cookies {
        headers.append(header::SET_COOKIE, cookie.clone());
    }
    response
}

fn other_browser() -> Failure {
    let message = "this login was begun in another browser, or more than 15 minutes ago";
    Failure::new(Code::LoginRefused, message).with_remedy("Log in again.")
}

fn cross_site() -> Failure {
    let message = "the request did not come from a page of this host";
    Failure::new(Code::Forbidden, message)
        .with_remedy("Open this host's page /login, and log out there.")
}

pub(crate) fn unavailable() -> Failure {
    let message = "Innkeeper does not respond";
    let remedy = "Try again in a moment: it may be restarting.";
    Failure::new(Code::DaemonUnavailable, message).with_remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn login_returns_to_paths_of_this_host_only() {
        for local in ["/", "/access?host=web.example.org&return=%2F", "/a//b"] {
            assert!(is_local(local), "{local}");
        }
        let long = format!("/{}", "a".repeat(2048));
        for other in [
            "",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example/",
            "evil",
            "/a b",
            "/a\n",
            "/\t/evil.example",
            &long,
        ] {
            assert!(!is_local(other), "{other:?}");
        }
    }
}
