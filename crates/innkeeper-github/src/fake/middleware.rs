//! Middleware of all API requests: authentication, authorization, injected failures, and the log of requests.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use innkeeper_model::preview::RepoName;
use jiff::Timestamp;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::{Value, json};

use super::world::{AppRecord, FailureKind, Rights};
use super::{Shared, world};

/// Maximum length of a request, in bytes.
const MAX_REQUEST: usize = 1 << 20;

/// The caller of a request.
#[derive(Clone, Debug)]
pub(super) enum Caller {
    /// A user with a token.
    Token(Rights),
    /// The App itself.
    App,
}

impl Caller {
    pub(super) fn login(&self) -> &str {
        match self {
            Self::Token(rights) => &rights.login,
            Self::App => "the App",
        }
    }
}

pub(super) async fn handle(State(world): State<Shared>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    let bytes = to_bytes(body, MAX_REQUEST).await.unwrap_or_default();
    let method = head.method.to_string();
    let path = head.uri.to_string();
    let caller = caller(&world, &head.headers);
    let by = caller.as_ref().map(|caller| caller.login().to_owned());
    let failure = world.lock().take_failure(&method, &path);
    let moved = || world.lock().moved(&path).map(FailureKind::Redirect);
    let failure = failure.or_else(moved);

    let response = match (failure.as_ref().and_then(response_instead), caller) {
        (Some(response), _) => response,
        (None, caller) => match authorized(&head, caller) {
            Err(error) => error.into_response(),
            Ok(_) if is_archived(&world, &head) => {
                let message = "Repository was archived so is read-only.";
                error_response(StatusCode::FORBIDDEN, message).into_response()
            }
            Ok(caller) => {
                head.extensions.insert(caller);
                let body = Body::from(bytes.clone());
                next.run(Request::from_parts(head, body)).await
            }
        },
    };
    let response = fail_afterwards(failure, response).await;
    log(&world, method, path, by, &response, &bytes);
    set_date(&world, response)
}

/// Returns the caller of an authorized request.
fn authorized(head: &Parts, caller: Option<Caller>) -> Result<Caller, ErrorResponse> {
    if head.headers.get(header::USER_AGENT).is_none() {
        let message = "Request forbidden by administrative rules";
        return Err(error_response(StatusCode::FORBIDDEN, message));
    }
    let caller =
        caller.ok_or_else(|| error_response(StatusCode::UNAUTHORIZED, "Bad credentials"))?;
    authorize(&caller, &head.method, head.uri.path())?;
    Ok(caller)
}

/// Returns the response of a failure that replaces the handler.
fn response_instead(failure: &FailureKind) -> Option<Response> {
    let limited = |header: &'static str, value: String| {
        let message = "API rate limit exceeded";
        let mut response = error_response(StatusCode::FORBIDDEN, message).into_response();
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(header, value);
        }
        response
    };
    match failure {
        FailureKind::Status(status) => {
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_GATEWAY);
            Some(error_response(status, "Failed on demand").into_response())
        }
        FailureKind::Answer(json) => Some(axum::Json(json.clone()).into_response()),
        FailureKind::Redirect(to) => {
            let to = [(header::LOCATION, to.clone())];
            Some((StatusCode::MOVED_PERMANENTLY, to).into_response())
        }
        FailureKind::RetryAfter(seconds) => Some(limited("retry-after", seconds.to_string())),
        FailureKind::UsedUp(seconds) => {
            let mut response = limited("x-ratelimit-remaining", "0".to_owned());
            set_reset(&mut response, *seconds);
            Some(response)
        }
        FailureKind::Last(_) | FailureKind::Slow(_) | FailureKind::CutOff => None,
    }
}

/// Applies a failure to the handler's response.
async fn fail_afterwards(failure: Option<FailureKind>, mut response: Response) -> Response {
    match failure {
        Some(FailureKind::Slow(milliseconds)) => {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        }
        Some(FailureKind::Last(seconds)) => {
            let none = HeaderValue::from_static("0");
            response.headers_mut().insert("x-ratelimit-remaining", none);
            set_reset(&mut response, seconds);
        }
        Some(FailureKind::CutOff) => {
            let broken = futures_util::stream::once(async {
                Err::<Bytes, _>(io::Error::from(io::ErrorKind::BrokenPipe))
            });
            response.headers_mut().remove(header::CONTENT_LENGTH);
            *response.body_mut() = Body::from_stream(broken);
        }
        _ => {}
    }
    response
}

fn set_reset(response: &mut Response, seconds: u64) {
    let seconds = i64::try_from(seconds).unwrap_or(0);
    let at = Timestamp::now().as_second() + seconds;
    let headers = response.headers_mut();
    headers.insert("x-ratelimit-reset", HeaderValue::from(at));
}

/// Logs a request.
fn log(
    world: &Shared,
    method: String,
    path: String,
    by: Option<String>,
    response: &Response,
    body: &[u8],
) {
    world.lock().requests.push(world::Request {
        method,
        path,
        by,
        status: response.status().as_u16(),
        body: serde_json::from_slice(body).ok(),
    });
}

/// Sets the date header, if the fake has a clock of its own.
fn set_date(world: &Shared, mut response: Response) -> Response {
    let ahead = world.lock().app.as_ref().map(|app| app.clock_ahead);
    if let Some(now) = ahead.and_then(|ahead| Timestamp::now().checked_add(ahead).ok()) {
        let text = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&now);
        if let Ok(value) = HeaderValue::from_str(&text.unwrap_or_default()) {
            response.headers_mut().insert(header::DATE, value);
        }
    }
    response
}

fn caller(world: &Shared, headers: &HeaderMap) -> Option<Caller> {
    let bearer = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let token = bearer.strip_prefix("Bearer ")?;
    let world = world.lock();
    if let Some(rights) = world.tokens.get(token) {
        let valid = rights.expires_at.is_none_or(|end| Timestamp::now() < end);
        return valid.then(|| Caller::Token(rights.clone()));
    }
    let app = world.app.as_ref()?;
    is_from_app(token, app).then_some(Caller::App)
}

/// Verifies the App's JSON Web Token as GitHub documents it ("Generating a JSON Web Token").
fn is_from_app(token: &str, app: &AppRecord) -> bool {
    let verify = || -> Option<()> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (_, claims) = signed.split_once('.')?;
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &app.public_key)
            .verify(signed.as_bytes(), &decode_base64url(signature)?)
            .ok()?;
        let claims: Value = serde_json::from_slice(&decode_base64url(claims)?).ok()?;
        let now = Timestamp::now()
            .checked_add(app.clock_ahead)
            .ok()?
            .as_second();
        let (iat, exp) = (claims["iat"].as_i64()?, claims["exp"].as_i64()?);
        let valid = iat <= now && now < exp && exp - now <= 600 && claims["iss"] == app.id;
        valid.then_some(())
    };
    verify().is_some()
}

/// Decodes base64url.
pub(super) fn decode_base64url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0u32, 0);
    for digit in text.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(bytes)
}

/// Rejects requests that the App itself or a restricted token may not make.
fn authorize(caller: &Caller, method: &Method, path: &str) -> Result<(), ErrorResponse> {
    let for_app = path == "/app" || path.starts_with("/app/");
    let rights = match (caller, for_app) {
        (Caller::App, true) => return Ok(()),
        (Caller::Token(rights), false) => rights,
        _ => return Err(error_response(StatusCode::UNAUTHORIZED, "Bad credentials")),
    };
    if let Some(repos) = &rights.repos {
        let mut parts = path.split('/').skip(1);
        let named = match (parts.next(), parts.next(), parts.next()) {
            (Some("repos"), Some(owner), Some(name)) => {
                RepoName::parse(&format!("{owner}/{name}")).ok()
            }
            _ => None,
        };
        if !named.is_some_and(|repo| repos.contains(&repo)) {
            return Err(error_response(StatusCode::NOT_FOUND, "Not Found"));
        }
    }
    if rights.read_only && method != Method::GET {
        let message = "Resource not accessible by integration";
        return Err(error_response(StatusCode::FORBIDDEN, message));
    }
    let needs = permission_for(path);
    if method != Method::GET && needs.is_some_and(|needs| rights.lacks.contains(needs)) {
        let message = "Resource not accessible by integration";
        return Err(ErrorResponse {
            needs,
            ..error_response(StatusCode::FORBIDDEN, message)
        });
    }
    Ok(())
}

/// Returns the permission that a request that writes needs, as in GitHub's header.
fn permission_for(path: &str) -> Option<&'static str> {
    let has = |part: &str| path.contains(part);
    match path {
        _ if has("/comments") => Some("issues=write; pull_requests=write"),
        _ if has("/deployments") => Some("deployments=write"),
        _ if has("/check-runs") => Some("checks=write"),
        _ if has("/statuses/") => Some("statuses=write"),
        _ => None,
    }
}

/// Reports whether a request writes to an archived repository.
fn is_archived(world: &Shared, head: &Parts) -> bool {
    let mut parts = head.uri.path().split('/').skip(2);
    let (Some(owner), Some(name)) = (parts.next(), parts.next()) else {
        return false;
    };
    let Ok(name) = RepoName::parse(&format!("{owner}/{name}")) else {
        return false;
    };
    let world = world.lock();
    let repo = world.repos.get(&name);
    head.method != Method::GET && repo.is_some_and(|repo| repo.archived)
}

/// An error in GitHub's format.
#[derive(Debug)]
pub(super) struct ErrorResponse {
    status: StatusCode,
    message: String,
    /// The permission that the caller lacks.
    needs: Option<&'static str>,
}

pub(super) fn error_response(status: StatusCode, message: &str) -> ErrorResponse {
    ErrorResponse {
        status,
        message: message.to_owned(),
        needs: None,
    }
}

impl IntoResponse for ErrorResponse {
    fn into_response(self) -> Response {
        let body = json!({
            "message": self.message,
            "documentation_url": "https://docs.github.com/rest",
            "status": self.status.as_str(),
        });
        let mut response = (self.status, axum::Json(body)).into_response();
        if let Some(needs) = self.needs {
            let needs = HeaderValue::from_static(needs);
            let headers = response.headers_mut();
            headers.insert("x-accepted-github-permissions", needs);
        }
        response
    }
}
