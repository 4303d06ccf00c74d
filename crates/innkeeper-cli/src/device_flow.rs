//! The login of this machine at a gateway, which a person allows in a browser: the device flow (RFC 8628).
//!
//! ```text
//! begin ──► the code that the person compares
//! poll ───► in the interval that the gateway gives, until the decision: the session
//! ```

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap};
use hyper::{Method, Request, StatusCode};
use innkeeper_model::access::SessionView;
use innkeeper_model::{Code, Failure, Kind, Secret};
use serde::Deserialize;
use tokio::time::timeout;

use crate::arguments::MachineName;
use crate::client::{USER_AGENT, failure_in, is_page};
use crate::gateway_failure as failure;
use crate::server_url::ServerUrl;
use crate::target::{Gateway, Target};
use crate::token::{Token, TokenSource};
use crate::transport;

/// This program among the clients of the gateway.
const CLIENT: &str = "innkeeper";

/// The grant type of the device flow.
const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// Limit for a response.
const RESPONSE_LIMIT: Duration = Duration::from_secs(30);

/// Maximum size of a response, in bytes.
const MAX_RESPONSE: usize = 64 << 10;

/// The time by which the interval grows after the response `slow_down` (RFC 8628, section 3.5).
const INTERVAL_STEP: Duration = Duration::from_secs(5);

/// The interval after a failure of the network is this at least, and twice the former one otherwise.
const MIN_BACKOFF: Duration = Duration::from_secs(1);

/// Maximum interval.
const MAX_INTERVAL: Duration = Duration::from_secs(60);

/// Maximum length of the texts that the gateway has this machine show, in characters.
const MAX_TEXT: usize = 1024;

/// A login that waits for a person.
pub(crate) struct Begun {
    device_code: Secret,
    /// The code to compare.
    pub(crate) user_code: String,
    /// The page to open, with the code.
    pub(crate) page: String,
    /// The time for which the code is valid.
    pub(crate) lifetime: Duration,
    pub(crate) pace: Pace,
}

/// The time between two polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace(Duration);

impl Pace {
    pub(crate) fn interval(self) -> Duration {
        self.0
    }

    /// Follows the gateway's request for a longer interval.
    pub(crate) fn slow_down(&mut self) {
        self.0 = (self.0 + INTERVAL_STEP).min(MAX_INTERVAL);
    }

    /// Follows a failure that passes.
    pub(crate) fn back_off(&mut self) {
        self.0 = (self.0 * 2).clamp(MIN_BACKOFF, MAX_INTERVAL);
    }
}

/// The answer to a poll.
pub(crate) enum Answer {
    /// The person has not decided yet.
    Undecided,
    /// Not yet, and the interval must be longer.
    SlowDown,
    /// The person allowed the login.
    Granted(Box<Granted>),
}

/// The session of this machine. It has no `Debug`: it contains the token.
pub(crate) struct Granted {
    pub(crate) token: Secret,
    pub(crate) session: SessionView,
}

#[derive(Deserialize)]
struct Authorization {
    device_code: String,
    user_code: String,
    verification_uri: String,
    #[serde(default)]
    verification_uri_complete: Option<String>,
    expires_in: u64,
    #[serde(default)]
    interval: Option<u64>,
}

#[derive(Deserialize)]
struct TokenResponse {
    access_token: String,
    session: SessionView,
}

/// Begins a login.
pub(crate) async fn begin(gateway: &Arc<Gateway>, machine: &MachineName) -> Result<Begun, Failure> {
    let form = [("client_id", CLIENT), ("machine", machine.as_str())];
    let (status, body) = post(gateway, "/login/device", &form).await?;
    let url = &gateway.url;
    if !status.is_success() {
        return Err(match failure_in(status, &body) {
            // The response of a gateway without this path.
            Some(found)
                if status == StatusCode::NOT_FOUND && found.code == Code::InvalidRequest =>
            {
                too_old(url)
            }
            Some(found) => found,
            None => failure::unexpected(url, status),
        });
    }
    let parsed: Result<Authorization, _> = serde_json::from_slice(&body);
    let sent = parsed.map_err(|_| failure::unexpected(url, status))?;
    let page = sent
        .verification_uri_complete
        .unwrap_or(sent.verification_uri);
    let is_text = |text: &str| {
        let length = text.len();
        (1..=MAX_TEXT).contains(&length) && text.bytes().all(|b| b.is_ascii_graphic())
    };
    if !is_text(&page) || !page.starts_with("https://") || !is_text(&sent.user_code) {
        return Err(failure::unexpected(url, status));
    }
    Ok(Begun {
        device_code: Secret::new(sent.device_code),
        user_code: sent.user_code,
        page,
        lifetime: Duration::from_secs(sent.expires_in.clamp(1, 3600)),
        pace: Pace(Duration::from_secs(sent.interval.unwrap_or(5)).min(MAX_INTERVAL)),
    })
}

/// Polls for the session once.
///
/// # Errors
/// When the person refused, the code has expired, or the gateway does not respond as it should. [`is_transient`] reports whether
/// the next poll can succeed.
pub(crate) async fn poll(gateway: &Arc<Gateway>, begun: &Begun) -> Result<Answer, Failure> {
    let form = [
        ("client_id", CLIENT),
        ("grant_type", GRANT_TYPE),
        ("device_code", begun.device_code.expose()),
    ];
    let (status, body) = post(gateway, "/login/token", &form).await?;
    let url = &gateway.url;
    if status.is_success() {
        let parsed: Result<TokenResponse, _> = serde_json::from_slice(&body);
        let sent = parsed.map_err(|_| failure::unexpected(url, status))?;
        // Fails for a text that a request could not carry.
        let token = Token::parse(&sent.access_token, TokenSource::Login(url.to_string()))?;
        return Ok(Answer::Granted(Box::new(Granted {
            token: token.secret,
            session: sent.session,
        })));
    }
    match oauth_error(&body).as_deref() {
        Some("authorization_pending") => Ok(Answer::Undecided),
        Some("slow_down") => Ok(Answer::SlowDown),
        Some("access_denied") => Err(refused(url)),
        Some("expired_token") => Err(expired(url)),
        Some("invalid_grant") => Err(forgotten(url)),
        _ => Err(failure_in(status, &body).unwrap_or_else(|| failure::unexpected(url, status))),
    }
}

/// Reports whether a failure of a poll passes: of the network, or of a daemon that restarts.
pub(crate) fn is_transient(failure: &Failure) -> bool {
    let is_limited = matches!(failure.code, Code::TooManyFailures | Code::TooManyRequests);
    is_limited || failure.code.kind() == Kind::Unavailable
}

/// Creates the failure for a code about which nobody decided in time.
pub(crate) fn expired(url: &ServerUrl) -> Failure {
    Failure::new(
        Code::TimedOut,
        format!("the code for {url} has expired: nobody decided about this machine in time"),
    )
    .with_remedy("Run `innkeeper login` again, and open the page within ten minutes.")
}

fn refused(url: &ServerUrl) -> Failure {
    Failure::new(
        Code::LoginRefused,
        format!("the login of this machine at {url} was refused on its page"),
    )
    .with_remedy(
        "Run `innkeeper login` again, and choose Allow on the page. A logout there before this machine has its session refuses it, too.",
    )
}

fn forgotten(url: &ServerUrl) -> Failure {
    Failure::new(
        Code::LoginRefused,
        format!("{url} does not know this login any more: its gateway was restarted, or its session was handed out"),
    )
    .with_remedy("Run `innkeeper login` again.")
}

fn too_old(url: &ServerUrl) -> Failure {
    Failure::new(
        Code::LoginDisabled,
        format!("the gateway of {url} has no logins of machines"),
    )
    .with_remedy(
        "Its version is too old: use a token of the host's administrator (`innkeeper context add`) until it is updated.",
    )
}

/// Sends a form, without a token, and returns the response of a gateway.
async fn post(
    gateway: &Arc<Gateway>,
    path: &str,
    form: &[(&str, &str)],
) -> Result<(StatusCode, Bytes), Failure> {
    let url = &gateway.url;
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("{}{path}", url.prefix))
        .header(header::HOST, &url.authority)
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from(encode(form))))
        .map_err(|error| {
            Failure::new(Code::Internal, format!("cannot build a request: {error}"))
        })?;
    let target = Target::Gateway(Arc::clone(gateway));
    let exchange = async {
        let mut connection = transport::connect(&target).await?;
        let response = innkeeper_http::exchange(&mut connection, request, MAX_RESPONSE).await;
        response.map_err(|error| failure::lost(url, &error))
    };
    let response = timeout(RESPONSE_LIMIT, exchange)
        .await
        .map_err(|_| failure::timed_out(url, RESPONSE_LIMIT))??;
    let (head, body) = response.into_parts();
    check(url, head.status, &head.headers, &body)?;
    Ok((head.status, body))
}

/// Fails for a response of something else than a gateway.
fn check(
    url: &ServerUrl,
    status: StatusCode,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<(), Failure> {
    let is_json = oauth_error(body).is_some() || failure_in(status, body).is_some();
    Err(match status {
        _ if is_page(headers) => failure::not_a_gateway(url, status, "it responds with a web page"),
        status if status.is_redirection() => {
            failure::not_a_gateway(url, status, "it redirects to another URL")
        }
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
            if !is_json =>
        {
            failure::unavailable(url, status)
        }
        StatusCode::TOO_MANY_REQUESTS if !is_json => failure::too_many(url),
        _ => return Ok(()),
    })
}

/// Returns the error in a response of OAuth.
fn oauth_error(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Fields {
        error: String,
    }
    let fields: Fields = serde_json::from_slice(body).ok()?;
    Some(fields.error)
}

/// Writes a form (application/x-www-form-urlencoded).
fn encode(form: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in form {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b if b.is_ascii_alphanumeric() || b"-._".contains(&b) => text.push(char::from(b)),
                b => text.push_str(&format!("%{b:02X}")),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_form_are_encoded() {
        let text = encode(&[("a", "Kim's laptop & more"), ("b", "urn:x-y_z.0=+\u{e9}")]);
        assert_eq!(
            text,
            "a=Kim%27s%20laptop%20%26%20more&b=urn%3Ax-y_z.0%3D%2B%C3%A9"
        );
    }

    #[test]
    fn pace_slows_down() {
        let mut pace = Pace(Duration::ZERO);
        let mut intervals = Vec::new();
        for _ in 0..3 {
            pace.back_off();
            intervals.push(pace.interval().as_secs());
        }
        pace.slow_down();
        intervals.push(pace.interval().as_secs());
        for _ in 0..3 {
            pace.back_off();
            pace.slow_down();
            intervals.push(pace.interval().as_secs());
        }
        assert_eq!(intervals, [1, 2, 4, 9, 23, 51, 60]);
    }
}
