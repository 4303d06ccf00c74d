//! Logins of machines without a browser, by the device flow (RFC 8628).
//!
//! ```text
//! machine ── POST /login/device ──► two codes: the machine keeps one and shows the other
//! browser ── /device ─────────────► a person who has logged in enters it, sees the machine, and decides
//! machine ── POST /login/token ───► every five seconds, until the decision: a session of the same person
//! ```
//!
//! innkeeperd creates the session when the machine takes it, on behalf of the person's session in the browser. No session exists
//! that its machine did not take, and a person who has logged out meanwhile gives none.

mod code;
mod oauth;
mod page;
mod requests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use innkeeper_model::access::{Actor, CreatedSession, SessionView, TokenKind, TokenText};
use innkeeper_model::{Code, Failure};
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tracing::error;

use self::code::{Machine, UserCode};
use self::oauth::{Authorization, AuthorizationRequest, Granted, OauthError, TokenRequest};
use self::page::DevicePage;
pub(crate) use self::requests::Requests;
use self::requests::{Decision, INTERVAL, LIFETIME, Poll, Taken};
use super::page::Page;
use super::seed::Seed;
use super::{HOME, MAX_FORM, current, go, unavailable};
use crate::browser;
use crate::published::Unknown;
use crate::receive::Context;
use crate::refuse::Refusal;

/// The path of the pages.
pub(super) const PATH: &str = "/device";

/// The parameters of the page's URL.
#[derive(Deserialize)]
pub(super) struct Parameters {
    user_code: Option<String>,
}

/// The form of the pages.
#[derive(Deserialize)]
struct Form {
    csrf: String,
    user_code: String,
    decision: Option<Button>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Button {
    Allow,
    Refuse,
}

/// A person in a browser.
struct Visitor {
    session: TokenText,
    view: SessionView,
    source: IpAddr,
}

/// Gives a machine its codes.
pub(super) async fn begin(
    State(context): State<Arc<Context>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let source = context.source(&headers);
    let body = match context.read_form(body, MAX_FORM).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let (machine, host) = match authorization_request(&headers, &body) {
        Ok(valid) => valid,
        Err(error) => return error.into_response(),
    };
    // Fails on a host where nobody can log in.
    let login = match Seed::new(HOME) {
        Ok(seed) => context.begin_login(&seed, source).await,
        Err(failure) => Err(failure),
    };
    if let Err(failure) = login {
        return failed(&failure);
    }
    match context.devices.begin(machine, source, Instant::now()) {
        Ok(Some(begun)) => {
            let page = format!("https://{host}{PATH}");
            let user_code = begun.user_code.to_string();
            Json(Authorization {
                device_code: begun.device_code,
                verification_uri_complete: format!("{page}?user_code={user_code}"),
                user_code,
                verification_uri: page,
                expires_in: LIFETIME.as_secs(),
                interval: INTERVAL.as_secs(),
            })
            .into_response()
        }
        Ok(None) => failed(&too_many_machines()),
        Err(error) => {
            error!(%error, "cannot create a code");
            failed(&unavailable())
        }
    }
}

/// Responds to a machine that polls for its session.
pub(super) async fn poll(
    State(context): State<Arc<Context>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let source = context.source(&headers);
    let body = match context.read_form(body, MAX_FORM).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let Some(request) = form::<TokenRequest>(&body) else {
        let problem = "the form must have client_id, grant_type and device_code";
        return OauthError::InvalidRequest(problem).into_response();
    };
    if let Err(error) = request.check() {
        return error.into_response();
    }
    match context.devices.poll(&request.device_code, Instant::now()) {
        Poll::Undecided => OauthError::AuthorizationPending.into_response(),
        Poll::TooEarly => OauthError::SlowDown.into_response(),
        Poll::Expired => OauthError::ExpiredToken.into_response(),
        Poll::Refused => OauthError::AccessDenied.into_response(),
        Poll::Allowed(taken) => hand_out(&context, taken, source).await,
        Poll::Unknown => match context.deny(source) {
            refusal @ Refusal::TooManyFailures(_) => refusal.into_response(),
            _ => OauthError::InvalidGrant.into_response(),
        },
    }
}

/// Shows the form for a code. The code of the URL is in it already, and the person confirms it: a link alone looks for nothing.
pub(super) async fn show(
    State(context): State<Arc<Context>>,
    headers: HeaderMap,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Response {
    let code = parameters.ok().and_then(|Query(sent)| sent.user_code);
    let code = code.as_deref().and_then(UserCode::parse);
    let Some((session, _)) = current(&context, &headers) else {
        return log_in(code);
    };
    DevicePage::Enter {
        csrf: browser::csrf_token(&session),
        code,
        is_wrong: false,
    }
    .into_response()
}

/// Shows the request with a code, or records the decision about it.
pub(super) async fn decide(
    State(context): State<Arc<Context>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let body = match context.read_form(body, MAX_FORM).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let Some(form) = form::<Form>(&body) else {
        return Page::of(&not_ours()).into_response();
    };
    let visitor = match visitor(&context, &headers, &form.csrf).await {
        Ok(visitor) => visitor,
        Err(response) => return response,
    };
    let (session, now) = (visitor.session.id(), Instant::now());
    let is_limited = context.admit_login(visitor.source).is_err();
    if is_limited || !context.devices.may_guess(session, now) {
        return Page::of(&too_many()).into_response();
    }
    let devices = &context.devices;
    let code = UserCode::parse(&form.user_code);
    let page = code.and_then(|code| match form.decision {
        None => {
            let request = devices.find(code, now)?;
            Some(DevicePage::Decide {
                csrf: form.csrf.clone(),
                code,
                request,
                login: visitor.view.person.login.to_string(),
                role: visitor.view.role.as_str(),
                source: visitor.source,
            })
        }
        Some(Button::Allow) => {
            let request = devices.decide(code, Decision::Allowed(session), now)?;
            Some(DevicePage::Allowed { request })
        }
        Some(Button::Refuse) => {
            devices.decide(code, Decision::Refused, now)?;
            Some(DevicePage::Refused)
        }
    });
    let page = page.unwrap_or_else(|| {
        devices.count_guess(session, now);
        context.count_failed_login(visitor.source);
        DevicePage::Enter {
            csrf: form.csrf,
            code: None,
            is_wrong: true,
        }
    });
    page.into_response()
}

/// Returns the person of a form on our page. The error is the response to all others.
async fn visitor(context: &Context, headers: &HeaderMap, csrf: &str) -> Result<Visitor, Response> {
    let Some((session, _)) = current(context, headers) else {
        return Err(Page::of(&logged_out()).into_response());
    };
    let is_own =
        browser::is_same_origin(&Method::POST, headers) && browser::is_token(csrf, &session);
    if !is_own {
        return Err(Page::of(&not_ours()).into_response());
    }
    let source = context.source(headers);
    let view = context.session_view(&session, source).await;
    let view = view.map_err(|failure| Page::of(&failure).into_response())?;
    if view.kind != TokenKind::Browser {
        return Err(Page::of(&not_a_browser()).into_response());
    }
    Ok(Visitor {
        session,
        view,
        source,
    })
}

/// Creates the session of a machine on behalf of the person who allowed it.
async fn hand_out(context: &Context, taken: Taken, source: IpAddr) -> Response {
    match context.credentials.is_current(taken.session) {
        Ok(true) => {}
        // The person has logged out, or their session was revoked.
        Ok(false) => return OauthError::AccessDenied.into_response(),
        Err(Unknown) => {
            context.devices.give_back(taken);
            return Refusal::Unavailable.into_response();
        }
    }
    let actor = Actor::Token(taken.session);
    let created = context.device_session(taken.machine(), &actor, source);
    match created.await {
        Ok(created) => Json(granted(created)).into_response(),
        Err(failure) => {
            if failure.code == Code::DaemonUnavailable {
                context.devices.give_back(taken);
            }
            failed(&failure)
        }
    }
}

fn granted(created: CreatedSession) -> Granted {
    let CreatedSession { session, token } = created;
    let now = Timestamp::now();
    Granted {
        access_token: token,
        token_type: "Bearer",
        expires_in: (session.expires_at).map(|end| end.duration_since(now).as_secs().max(0)),
        session,
    }
}

/// Returns the machine's name, and the host of the gateway as the machine reached it.
fn authorization_request(
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<(Machine, Authority), OauthError> {
    let invalid = OauthError::InvalidRequest;
    // Browsers send it with every POST. A page of another site could begin requests from the addresses of its visitors.
    if headers.contains_key(header::ORIGIN) {
        return Err(invalid(
            "this is for programs, and the request has the header Origin",
        ));
    }
    let request = form::<AuthorizationRequest>(body);
    let request = request.ok_or(invalid("the form must have client_id and machine"))?;
    request.check()?;
    let machine = Machine::parse(&request.machine);
    let machine = machine.ok_or(invalid(
        "machine must be 1 to 64 printable ASCII characters",
    ))?;
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let host = host.and_then(|host| host.parse::<Authority>().ok());
    let host = host.filter(|host| !host.as_str().contains('@'));
    Ok((
        machine,
        host.ok_or(invalid("the header Host is missing or invalid"))?,
    ))
}

/// Parses a form (application/x-www-form-urlencoded).
fn form<T: DeserializeOwned>(body: &Bytes) -> Option<T> {
    let text = std::str::from_utf8(body).ok()?;
    let uri: Uri = format!("/?{text}").parse().ok()?;
    let Query(form) = Query::try_from_uri(&uri).ok()?;
    Some(form)
}

/// Sends a browser to log in, and back to the page.
fn log_in(code: Option<UserCode>) -> Response {
    let back = match code {
        Some(code) => format!("{PATH}%3Fuser_code%3D{code}"),
        None => PATH.to_owned(),
    };
    go(&format!("{HOME}?return={back}"), &[])
}

/// Returns the response of the API to a failure.
fn failed(failure: &Failure) -> Response {
    let status = StatusCode::from_u16(failure.code.http_status());
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, Json(failure)).into_response()
}

fn not_ours() -> Failure {
    let message = "the request did not come from a page of this host";
    Failure::new(Code::Forbidden, message)
        .with_remedy("Open this host's page /device, and enter the code there.")
}

fn not_a_browser() -> Failure {
    let message = "the session of a machine cannot let another machine log in";
    Failure::new(Code::Forbidden, message)
        .with_remedy("Log out on this host's page /login, and log in with GitHub.")
}

/// A redirect would end at GitHub's page, which browsers do not let a form lead to (`form-action` of the policy).
fn logged_out() -> Failure {
    let message = "this browser has no session any more";
    Failure::new(Code::Unauthorized, message)
        .with_remedy("Log in, then open this host's page /device again.")
}

fn too_many_machines() -> Failure {
    let message = "too many machines of this address, or of all together, wait for a decision";
    Failure::new(Code::TooManyRequests, message)
        .with_remedy("Allow or refuse them on the gateway's page /device, or wait ten minutes.")
}

fn too_many() -> Failure {
    let message = "too many codes that no machine waits with";
    Failure::new(Code::TooManyFailures, message)
        .with_remedy("Wait ten minutes, then enter the code that the machine shows.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(host: &str, body: &str) -> Result<(Machine, Authority), OauthError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().expect("a header"));
        authorization_request(&headers, &Bytes::copy_from_slice(body.as_bytes()))
    }

    #[test]
    fn form_of_a_machine_is_checked() {
        let good = "client_id=innkeeper&machine=Kim%27s+laptop";
        let (machine, host) = request("api.example.org:8443", good).expect("valid");
        assert_eq!(
            (machine.as_str(), host.as_str()),
            ("Kim's laptop", "api.example.org:8443")
        );
        let invalid_client = request("a", "client_id=other&machine=a");
        assert_eq!(
            invalid_client.expect_err("refused"),
            OauthError::InvalidClient
        );
        for (host, body) in [
            ("a", ""),
            ("a", "machine=a"),
            ("a", "client_id=innkeeper"),
            ("a", "client_id=innkeeper&machine="),
            ("a", "client_id=innkeeper&machine=a%0a"),
            ("a", "client_id=innkeeper&machine=%1b%5B2J"),
            ("a", "client_id=innkeeper&machine=%e2%80%ae"),
            ("a", "client_id=innkeeper&machine=%ff"),
            ("a", "client_id=innkeeper&machine=a&machine=b"),
            ("a", "{\"client_id\":\"innkeeper\",\"machine\":\"a\"}"),
            ("evil@a", good),
            ("", good),
        ] {
            let error = request(host, body).expect_err(body);
            assert!(
                matches!(error, OauthError::InvalidRequest(_)),
                "{host} {body}"
            );
        }
    }
}
