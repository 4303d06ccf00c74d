//! What happens to every request before and after it is answered: who asks, what fails, what is written
//! down.

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
use super::{Shared, lock, world};

/// The longest request that is read, in bytes.
const MAX_REQUEST: usize = 1 << 20;

/// Who makes a request.
#[derive(Clone, Debug)]
pub(super) enum Caller {
    /// Somebody with a token.
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

pub(super) async fn enter(State(world): State<Shared>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    let bytes = to_bytes(body, MAX_REQUEST).await.unwrap_or_default();
    let method = head.method.to_string();
    let path = head.uri.to_string();
    let caller = caller(&world, &head.headers);
    let by = caller.as_ref().map(|caller| caller.login().to_owned());
    let failure = lock(&world).take_failure(&method, &path);
    let moved = || lock(&world).moved(&path).map(FailureKind::Redirect);
    let failure = failure.or_else(moved);

    let answer = match (failure.as_ref().and_then(instead), caller) {
        (Some(answer), _) => answer,
        (None, caller) => match allowed(&head, caller) {
            Err(refusal) => refusal.into_response(),
            Ok(caller) => {
                head.extensions.insert(caller);
                let body = Body::from(bytes.clone());
                next.run(Request::from_parts(head, body)).await
            }
        },
    };
    let answer = afterwards(failure, answer).await;
    note(&world, method, path, by, &answer, &bytes);
    dated(&world, answer)
}

/// Who asks, unless nobody is answered who asks like this.
fn allowed(head: &Parts, caller: Option<Caller>) -> Result<Caller, Refusal> {
    if head.headers.get(header::USER_AGENT).is_none() {
        let message = "Request forbidden by administrative rules";
        return Err(refusal(StatusCode::FORBIDDEN, message));
    }
    let caller = caller.ok_or_else(|| refusal(StatusCode::UNAUTHORIZED, "Bad credentials"))?;
    may(&caller, &head.method, head.uri.path())?;
    Ok(caller)
}

/// Answers that are given without carrying anything out.
fn instead(failure: &FailureKind) -> Option<Response> {
    let limited = |header: &'static str, value: String| {
        let message = "API rate limit exceeded";
        let mut answer = refusal(StatusCode::FORBIDDEN, message).into_response();
        if let Ok(value) = HeaderValue::from_str(&value) {
            answer.headers_mut().insert(header, value);
        }
        answer
    };
    match failure {
        FailureKind::Status(status) => {
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_GATEWAY);
            Some(refusal(status, "Failed on demand").into_response())
        }
        FailureKind::Redirect(to) => {
            let to = [(header::LOCATION, to.clone())];
            Some((StatusCode::MOVED_PERMANENTLY, to).into_response())
        }
        FailureKind::RetryAfter(seconds) => Some(limited("retry-after", seconds.to_string())),
        FailureKind::UsedUp(seconds) => {
            let mut answer = limited("x-ratelimit-remaining", "0".to_owned());
            set_reset(&mut answer, *seconds);
            Some(answer)
        }
        FailureKind::Last(_) | FailureKind::Slow(_) | FailureKind::CutOff => None,
    }
}

async fn afterwards(failure: Option<FailureKind>, mut answer: Response) -> Response {
    match failure {
        Some(FailureKind::Slow(milliseconds)) => {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        }
        Some(FailureKind::Last(seconds)) => {
            let none = HeaderValue::from_static("0");
            answer.headers_mut().insert("x-ratelimit-remaining", none);
            set_reset(&mut answer, seconds);
        }
        Some(FailureKind::CutOff) => {
            let broken = futures_util::stream::once(async {
                Err::<Bytes, _>(io::Error::from(io::ErrorKind::BrokenPipe))
            });
            answer.headers_mut().remove(header::CONTENT_LENGTH);
            *answer.body_mut() = Body::from_stream(broken);
        }
        _ => {}
    }
    answer
}

fn set_reset(answer: &mut Response, seconds: u64) {
    let seconds = i64::try_from(seconds).unwrap_or(0);
    let at = Timestamp::now().as_second() + seconds;
    let headers = answer.headers_mut();
    headers.insert("x-ratelimit-reset", HeaderValue::from(at));
}

fn note(
    world: &Shared,
    method: String,
    path: String,
    by: Option<String>,
    answer: &Response,
    body: &[u8],
) {
    lock(world).requests.push(world::Request {
        method,
        path,
        by,
        status: answer.status().as_u16(),
        body: serde_json::from_slice(body).ok(),
    });
}

/// With a clock of its own, the fake says what time it is.
fn dated(world: &Shared, mut answer: Response) -> Response {
    let ahead = lock(world).app.as_ref().map(|app| app.clock_ahead);
    if let Some(now) = ahead.and_then(|ahead| Timestamp::now().checked_add(ahead).ok()) {
        let text = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&now);
        if let Ok(value) = HeaderValue::from_str(&text.unwrap_or_default()) {
            answer.headers_mut().insert(header::DATE, value);
        }
    }
    answer
}

fn caller(world: &Shared, headers: &HeaderMap) -> Option<Caller> {
    let bearer = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let token = bearer.strip_prefix("Bearer ")?;
    let world = lock(world);
    if let Some(rights) = world.tokens.get(token) {
        let valid = rights.expires_at.is_none_or(|end| Timestamp::now() < end);
        return valid.then(|| Caller::Token(rights.clone()));
    }
    let app = world.app.as_ref()?;
    is_from_app(token, app).then_some(Caller::App)
}

/// Checks the App's statement about itself as GitHub documents it ("Generating a JSON Web Token").
fn is_from_app(token: &str, app: &AppRecord) -> bool {
    let verify = || -> Option<()> {
        let (statement, signature) = token.rsplit_once('.')?;
        let (_, claims) = statement.split_once('.')?;
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &app.public_key)
            .verify(statement.as_bytes(), &unbase64url(signature)?)
            .ok()?;
        let claims: Value = serde_json::from_slice(&unbase64url(claims)?).ok()?;
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

fn unbase64url(text: &str) -> Option<Vec<u8>> {
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

/// What the App itself and a narrowed token are not allowed.
fn may(caller: &Caller, method: &Method, path: &str) -> Result<(), Refusal> {
    let for_app = path == "/app" || path.starts_with("/app/");
    let rights = match (caller, for_app) {
        (Caller::App, true) => return Ok(()),
        (Caller::Token(rights), false) => rights,
        _ => return Err(refusal(StatusCode::UNAUTHORIZED, "Bad credentials")),
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
            return Err(refusal(StatusCode::NOT_FOUND, "Not Found"));
        }
    }
    if rights.read_only && method != Method::GET {
        let message = "Resource not accessible by integration";
        return Err(refusal(StatusCode::FORBIDDEN, message));
    }
    Ok(())
}

/// A refusal in GitHub's form.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    message: String,
}

pub(super) fn refusal(status: StatusCode, message: &str) -> Refusal {
    Refusal {
        status,
        message: message.to_owned(),
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({
            "message": self.message,
            "documentation_url": "https://docs.github.com/rest",
            "status": self.status.as_str(),
        });
        (self.status, axum::Json(body)).into_response()
    }
}
