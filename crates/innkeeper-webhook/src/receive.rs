//! From a request to its response.
//!
//! The steps are ordered by trust. A body is read only after a well-formed signature header, and parsed only after its
//! signature was verified; of an ignored event whose body is too long, only the length is examined. The program keeps no state: the response follows innkeeperd's answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http_body_util::BodyExt;
use innkeeper_github::event::{self, DELIVERY_HEADER, Delivery, EVENT_HEADER};
use innkeeper_github::form;
use innkeeper_github::ping::{Ping, WEBHOOK_PATH};
use innkeeper_github::signature::{self, SIGNATURE_HEADER};
use innkeeper_model::chain;
use innkeeper_model::preview::intake::{IntakeAnswer, IntakeEvent, IntakeRequest};
use innkeeper_model::preview::{PingEvent, PrAction, RepoName};
use innkeeper_service::server::Link;
use innkeeper_service::{LogThrottle, PeerQuota};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant as Deadline;
use tracing::{debug, error, warn};

use crate::allowlist::Allowlist;
use crate::intake::Intake;
use crate::peers::{self, sharing};
use crate::response::WebhookResponse;

/// The maximum length of an accepted body, in bytes (contract).
const BODY_LIMIT: usize = 1 << 20;

/// The maximum length of a body that is read to its end, so that its sender receives the response. GitHub sends no
/// longer ones ("Webhook events and payloads", "Payload cap").
const READ_LIMIT: usize = 25 << 20;

/// Timeout for innkeeperd. GitHub waits for 10 s and does not retry.
const INTAKE_TIMEOUT: Duration = Duration::from_secs(8);

/// Timeout for the record of a ping, which the response does not depend on.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// The maximum length of a delivery's id and of an event's name. GitHub's have 36 and about 40 characters.
const MAX_IDENTIFIER: usize = 64;

/// State shared by all requests.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    allowlist: watch::Receiver<Arc<Allowlist>>,
    intake: Intake,
    started: Instant,
    body_timeout: Duration,
    signature_warnings: Arc<LogThrottle>,
    bodies: PeerQuota,
}

impl Context {
    /// Creates a context whose uptime starts now. One client may send bodies on half of the `connections`.
    pub(crate) fn new(
        allowlist: watch::Receiver<Arc<Allowlist>>,
        intake: Intake,
        body_timeout: Duration,
        connections: usize,
    ) -> Self {
        Self {
            allowlist,
            intake,
            started: Instant::now(),
            body_timeout,
            signature_warnings: Arc::default(),
            bodies: sharing(connections),
        }
    }

    /// Logs rejected signatures, throttled.
    fn log_bad_signature(&self) {
        if let Some(count) = self.signature_warnings.count(Instant::now()) {
            warn!(
                count,
                "rejected requests without a valid signature; if they are from GitHub, its secret differs from the configured ones"
            );
        }
    }
}

/// Returns the routes of the API.
pub(crate) fn router(context: Context) -> Router {
    Router::new()
        .route(WEBHOOK_PATH, post(github))
        .route(&format!("{WEBHOOK_PATH}/"), post(github))
        .route("/health", get(health))
        .with_state(context)
}

/// `uptime` is in seconds.
async fn health(State(context): State<Context>) -> Json<Value> {
    Json(json!({ "status": "ok", "uptime": context.started.elapsed().as_secs_f64() }))
}

async fn github(
    State(context): State<Context>,
    Extension(link): Extension<Link>,
    headers: HeaderMap,
    body: Body,
) -> WebhookResponse {
    let received_at = Timestamp::now();
    let deadline = Deadline::now() + INTAKE_TIMEOUT;
    if let Err(reason) = signature::check_header(text(&headers, SIGNATURE_HEADER)) {
        debug!(%reason, "rejected");
        context.log_bad_signature();
        return WebhookResponse::InvalidSignature;
    }
    let client = peers::client(link.peer, &headers);
    let slot = match client.map(|client| context.bodies.acquire(client)) {
        Some(None) => return WebhookResponse::TooMany,
        slot => slot,
    };
    let read = read_body(&headers, body);
    let body = match tokio::time::timeout(context.body_timeout, read).await {
        Ok(Ok(body)) => body,
        Ok(Err(response)) => return response,
        Err(_) => return WebhookResponse::TooSlow,
    };
    let allowlist = Arc::clone(&context.allowlist.borrow());
    let event = match admit(&allowlist, &headers, &body) {
        Ok(event) => event,
        Err(response) => {
            if response == WebhookResponse::InvalidSignature {
                context.log_bad_signature();
            }
            return response;
        }
    };
    drop((body, slot));
    hand_over(&context.intake, event, received_at, deadline).await
}

/// Reads the body.
async fn read_body(headers: &HeaderMap, mut body: Body) -> Result<Bytes, WebhookResponse> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .unwrap_or(0);
    if announced > READ_LIMIT {
        return Err(too_long(headers));
    }
    let mut whole = Vec::with_capacity(announced.min(BODY_LIMIT));
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        // The sender is gone, so the response does not matter.
        let frame = frame.map_err(|_| WebhookResponse::InvalidPayload)?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        length += data.len();
        if length > READ_LIMIT {
            break;
        }
        if length <= BODY_LIMIT {
            whole.extend_from_slice(&data);
        }
    }
    match length {
        ..=BODY_LIMIT => Ok(whole.into()),
        _ => Err(too_long(headers)),
    }
}

/// Returns the response to a body over the limit, whose signature is not verified. An event that is ignored anyway is not
/// an error: GitHub would show its delivery as failed. The response depends only on the request.
fn too_long(headers: &HeaderMap) -> WebhookResponse {
    match identify(headers) {
        Ok((_, name)) if !event::is_read(name) => WebhookResponse::IgnoredEvent(name.to_owned()),
        _ => WebhookResponse::TooLong,
    }
}

/// Returns the delivery's id and the event's name.
fn identify(headers: &HeaderMap) -> Result<(&str, &str), WebhookResponse> {
    let identifier = |name| text(headers, name).filter(|text| is_identifier(text));
    let delivery = identifier(DELIVERY_HEADER).ok_or(WebhookResponse::InvalidDelivery)?;
    let name = identifier(EVENT_HEADER).ok_or(WebhookResponse::InvalidEvent)?;
    Ok((delivery, name))
}

/// Returns the event to hand over. The error is the response to all other deliveries.
fn admit(
    allowlist: &Allowlist,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<IntakeEvent, WebhookResponse> {
    if let Err(reason) = (allowlist.secrets).verify(body, text(headers, SIGNATURE_HEADER)) {
        debug!(%reason, "rejected");
        return Err(WebhookResponse::InvalidSignature);
    }
    let (delivery, name) = identify(headers)?;
    // An invalid form is an empty payload: only an event whose payload is needed fails.
    let payload = form::payload(text(headers, header::CONTENT_TYPE.as_str()), body);
    let event = match event::parse(name, delivery, &payload.unwrap_or_default()) {
        Ok(Delivery::Ping(ping)) => return admit_ping(allowlist, delivery, ping),
        Ok(Delivery::Ignored(event)) => return Err(WebhookResponse::IgnoredEvent(event)),
        Ok(Delivery::PullRequest(event)) => event,
        Ok(Delivery::Command(event)) if allowlist.allows(&event.pull_request.repo) => {
            return Ok(IntakeEvent::Command(Box::new(event)));
        }
        Ok(Delivery::Command(_)) => return Err(WebhookResponse::NotAllowed),
        // Not checked against the list: the name may have changed, and the daemon knows repositories by number.
        Ok(Delivery::Repository(event)) => return Ok(IntakeEvent::Repository(event)),
        Err(error) => {
            warn!(
                delivery,
                error = chain(&error),
                "cannot parse a signed delivery"
            );
            return Err(WebhookResponse::InvalidPayload);
        }
    };
    if !allowlist.allows(&event.pull_request.repo) {
        return Err(WebhookResponse::NotAllowed);
    }
    if let PrAction::Other(action) = &event.action {
        debug!(delivery, action, "nothing to do");
        return Err(WebhookResponse::IgnoredEvent(name.to_owned()));
    }
    Ok(IntakeEvent::PullRequest(event))
}

/// Returns the ping to hand over, unless it is not from an allowed repository or an organization.
fn admit_ping(
    allowlist: &Allowlist,
    delivery: &str,
    ping: Ping,
) -> Result<IntakeEvent, WebhookResponse> {
    let Ping { owner, problems } = ping;
    for problem in &problems {
        warn!(
            delivery,
            remedy = problem.remedy,
            "a setting of the webhook on GitHub: {problem}"
        );
    }
    let is_allowed =
        |owner: &String| RepoName::parse(owner).map_or(true, |repo| allowlist.allows(&repo));
    match owner.filter(is_allowed) {
        Some(owner) => Ok(IntakeEvent::Ping(PingEvent {
            delivery: delivery.to_owned(),
            owner,
            problems,
        })),
        None => Err(WebhookResponse::Pong(problems)),
    }
}

/// Returns a header's value, if it is text.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Reports whether a header's text can be an id or a name from GitHub.
fn is_identifier(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    (1..=MAX_IDENTIFIER).contains(&text.len()) && text.bytes().all(allowed)
}

async fn hand_over(
    intake: &Intake,
    event: IntakeEvent,
    received_at: Timestamp,
    deadline: Deadline,
) -> WebhookResponse {
    let request = IntakeRequest { event, received_at };
    let (delivery, about) = match &request.event {
        IntakeEvent::Ping(ping) => {
            let problems = ping.problems.clone();
            let deadline = deadline.min(Deadline::now() + PING_TIMEOUT);
            // Best effort: the ping succeeds while innkeeperd is away.
            if intake.hand_over(&request, deadline).await != Some(IntakeAnswer::Noted) {
                warn!("innkeeperd has not recorded a ping");
            }
            return WebhookResponse::Pong(problems);
        }
        IntakeEvent::PullRequest(event) => (&event.delivery, event.pull_request.to_string()),
        IntakeEvent::Command(event) => (&event.delivery, event.pull_request.to_string()),
        IntakeEvent::Repository(event) => (&event.delivery, event.name.to_string()),
    };
    match intake.hand_over(&request, deadline).await {
        Some(IntakeAnswer::Accepted { slug }) => {
            debug!(delivery, about, %slug, "accepted");
            WebhookResponse::Accepted(slug)
        }
        Some(IntakeAnswer::Duplicate { slug }) => {
            debug!(delivery, about, %slug, "a duplicate");
            WebhookResponse::Duplicate(slug)
        }
        Some(IntakeAnswer::Noted) => {
            debug!(delivery, about, "accepted");
            WebhookResponse::Noted
        }
        Some(IntakeAnswer::NotAllowed) => WebhookResponse::NotAllowed,
        Some(IntakeAnswer::SlugCollision) => {
            warn!(delivery, about, "all names for the preview are taken");
            WebhookResponse::SlugCollision
        }
        Some(IntakeAnswer::Failed { failure }) => {
            error!(delivery, about, %failure, "innkeeperd cannot record the delivery");
            WebhookResponse::Unavailable
        }
        None => {
            warn!(delivery, about, "innkeeperd did not answer in time");
            WebhookResponse::Unavailable
        }
    }
}
