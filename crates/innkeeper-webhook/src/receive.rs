//! From a request to its answer.
//!
//! The order is that of trust: no body is read without a well-formed signature header, nothing of a body is
//! looked at before its signature was found good, and
//! nothing is remembered before innkeeperd has it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http_body_util::BodyExt;
use innkeeper_github::event::{self, DELIVERY_HEADER, Delivery, EVENT_HEADER};
use innkeeper_github::signature::{self, SIGNATURE_HEADER};
use innkeeper_model::chain;
use innkeeper_model::preview::PrAction;
use innkeeper_model::preview::intake::{IntakeAnswer, IntakeEvent, IntakeRequest};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant as Deadline;
use tracing::{debug, error, warn};

use crate::answer::Answer;
use crate::gate::{Gate, SharedGate};
use crate::intake::Intake;
use crate::peers::{Peer, Peers};
use crate::throttle::Throttle;

/// The longest body that is taken, in bytes (contract).
const BODY_LIMIT: usize = 1 << 20;

/// The longest body that is read to its end, so that its sender hears that it is too long. GitHub sends no
/// longer ones ("Webhook events and payloads", "Payload cap").
const READ_LIMIT: usize = 25 << 20;

/// How long innkeeperd may take. GitHub waits for 10 s and never tries again by itself.
const PATIENCE: Duration = Duration::from_secs(8);

/// The longest id of a delivery and name of an event. GitHub's have 36 and about 40 characters.
const MAX_WORD: usize = 64;

/// What every request can use.
#[derive(Clone, Debug)]
pub struct Context {
    gate: SharedGate,
    intake: Intake,
    started: Instant,
    body_timeout: Duration,
    refused: Arc<Throttle>,
    bodies: Peers,
}

impl Context {
    /// A context that starts to count its uptime now. One client may send bodies on half of the
    /// `connections`.
    #[must_use]
    pub fn new(
        gate: SharedGate,
        intake: Intake,
        body_timeout: Duration,
        connections: usize,
    ) -> Self {
        Self {
            gate,
            intake,
            started: Instant::now(),
            body_timeout,
            refused: Arc::default(),
            bodies: Peers::sharing(connections),
        }
    }

    /// Logs refused signatures, throttled.
    fn refuse_signature(&self) {
        if let Some(count) = self.refused.count(Instant::now()) {
            warn!(
                count,
                "requests without a valid signature were refused; if they are GitHub's, its secret is not ours"
            );
        }
    }
}

/// All calls.
pub fn router(context: Context) -> Router {
    Router::new()
        .route("/webhook/github", post(github))
        .route("/health", get(health))
        .with_state(context)
}

/// `uptime` is in seconds.
async fn health(State(context): State<Context>) -> Json<Value> {
    Json(json!({ "status": "ok", "uptime": context.started.elapsed().as_secs_f64() }))
}

async fn github(
    State(context): State<Context>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let received_at = Timestamp::now();
    let deadline = Deadline::now() + PATIENCE;
    if let Err(reason) = signature::check_header(text(&headers, SIGNATURE_HEADER)) {
        debug!(%reason, "refused");
        context.refuse_signature();
        return Answer::InvalidSignature;
    }
    let share = match peer
        .client(&headers)
        .map(|client| context.bodies.enter(client))
    {
        Some(None) => return Answer::TooMany,
        share => share,
    };
    let read = read_body(&headers, body);
    let body = match tokio::time::timeout(context.body_timeout, read).await {
        Ok(Ok(body)) => body,
        Ok(Err(answer)) => return answer,
        Err(_) => return Answer::TooSlow,
    };
    let gate = context.gate.get();
    let event = match admit(&gate, &headers, &body) {
        Ok(event) => event,
        Err(answer) => {
            if answer == Answer::InvalidSignature {
                context.refuse_signature();
            }
            return answer;
        }
    };
    drop((body, share));
    hand_over(&context.intake, event, received_at, deadline).await
}

/// Reads the body, or says why not.
async fn read_body(headers: &HeaderMap, mut body: Body) -> Result<Bytes, Answer> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .unwrap_or(0);
    if announced > READ_LIMIT {
        return Err(Answer::TooLong);
    }
    let mut whole = Vec::with_capacity(announced.min(BODY_LIMIT));
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        // The sender is gone: nobody hears the answer.
        let frame = frame.map_err(|_| Answer::InvalidPayload)?;
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
        _ => Err(Answer::TooLong),
    }
}

/// The event that is to be handed over, or the answer if there is none.
fn admit(gate: &Gate, headers: &HeaderMap, body: &[u8]) -> Result<IntakeEvent, Answer> {
    let text = |name| text(headers, name);
    if let Err(reason) = gate.secrets.verify(body, text(SIGNATURE_HEADER)) {
        debug!(%reason, "refused");
        return Err(Answer::InvalidSignature);
    }
    let delivery = text(DELIVERY_HEADER).filter(|id| is_word(id));
    let delivery = delivery.ok_or(Answer::InvalidDelivery)?;
    let name = text(EVENT_HEADER).filter(|name| is_word(name));
    let name = name.ok_or(Answer::InvalidEvent)?;
    let event = match event::parse(name, delivery, body) {
        Ok(Delivery::Ping) => return Err(Answer::Pong),
        Ok(Delivery::Ignored(event)) => return Err(Answer::IgnoredEvent(event)),
        Ok(Delivery::PullRequest(event)) => event,
        // Whatever its name is now: the daemon acts for repositories that it knows by their numbers.
        Ok(Delivery::Repository(event)) => return Ok(IntakeEvent::Repository(event)),
        Err(error) => {
            warn!(
                delivery,
                error = chain(&error),
                "a signed delivery is not understood"
            );
            return Err(Answer::InvalidPayload);
        }
    };
    if !gate.allows(&event.pull_request.repo) {
        return Err(Answer::NotAllowed);
    }
    if let PrAction::Other(action) = &event.action {
        debug!(delivery, action, "nothing to do");
        return Err(Answer::IgnoredEvent(name.to_owned()));
    }
    Ok(IntakeEvent::PullRequest(event))
}

/// A header's value, if it is text.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Whether a text from a header can be an id or a name of GitHub's.
fn is_word(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    (1..=MAX_WORD).contains(&text.len()) && text.bytes().all(allowed)
}

async fn hand_over(
    intake: &Intake,
    event: IntakeEvent,
    received_at: Timestamp,
    deadline: Deadline,
) -> Answer {
    let request = IntakeRequest { event, received_at };
    let (delivery, about) = match &request.event {
        IntakeEvent::PullRequest(event) => (&event.delivery, event.pull_request.to_string()),
        IntakeEvent::Repository(event) => (&event.delivery, event.name.to_string()),
    };
    match intake.hand_over(&request, deadline).await {
        Some(IntakeAnswer::Accepted { slug } | IntakeAnswer::Duplicate { slug }) => {
            debug!(delivery, about, %slug, "accepted");
            Answer::Accepted(slug)
        }
        Some(IntakeAnswer::Noted) => {
            debug!(delivery, about, "accepted");
            Answer::Noted
        }
        Some(IntakeAnswer::NotAllowed) => Answer::NotAllowed,
        Some(IntakeAnswer::SlugCollision) => {
            warn!(delivery, about, "every name for the preview is taken");
            Answer::SlugCollision
        }
        Some(IntakeAnswer::Failed { failure }) => {
            error!(delivery, about, %failure, "innkeeperd could not record it");
            Answer::Unavailable
        }
        None => {
            warn!(delivery, about, "innkeeperd did not take it in time");
            Answer::Unavailable
        }
    }
}
