//! The intake's only call: record deliveries.

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use innkeeper_model::preview::intake::{
    INTAKE_PATH, IntakeAnswer, IntakeEvent, IntakeRequest, MAX_BATCH, MAX_BODY,
};
use innkeeper_model::preview::{
    DeliveryEvent, PullRequest, RepositoryAction, RepositoryEvent, slug_candidates, webhook_slug,
};
use innkeeper_model::{Code, Failure, GuestName, chain};
use innkeeper_store::{NewDelivery, Receipt, Store, StoreError};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::Notifier;
use crate::api_error::ApiError;
use crate::guarded::{Listener, Purpose};

/// The purpose of the intake's socket. The webhook uses two connections.
pub(crate) const PURPOSE: Purpose = Purpose {
    program: "innkeeper-webhook",
    connections: 16,
};

/// State shared by all calls.
#[derive(Clone)]
struct Intake {
    store: Store,
    notifier: Notifier,
    /// True if every open pull request gets a preview, which is recorded together with the delivery.
    claims: bool,
}

/// Serves until `stopping`, then completes the calls in flight. Recorded deliveries are reported to the notifier. With
/// `claims`, a delivery that requests a preview is recorded together with the preview; otherwise the controller decides
/// later.
pub(crate) async fn serve(
    listener: Listener,
    store: Store,
    notifier: Notifier,
    claims: bool,
    stopping: CancellationToken,
) {
    let intake = Intake {
        store,
        notifier,
        claims,
    };
    let served = axum::serve(listener, router(intake))
        .with_graceful_shutdown(stopping.cancelled_owned())
        .await;
    if let Err(error) = served {
        error!(%error, "the intake has stopped; deliveries are no longer accepted");
    }
}

fn router(intake: Intake) -> Router {
    Router::new()
        .route(INTAKE_PATH, post(deliveries))
        .fallback(async || invalid("this call does not exist; this socket only accepts deliveries"))
        .with_state(intake)
}

/// Records a list of deliveries, and responds when all of them are on disk.
async fn deliveries(
    State(intake): State<Intake>,
    request: Request,
) -> Result<Json<Vec<IntakeAnswer>>, Response> {
    let body = read_body(request.into_body()).await?;
    let requests = parse(&body).map_err(IntoResponse::into_response)?;
    // A task of its own, because the webhook may disconnect at its deadline: the deliveries must be recorded, and
    // subscribers notified, nevertheless.
    let recording = tokio::spawn(async move { intake.record(requests).await });
    match recording.await {
        Ok(answer) => answer.map(Json).map_err(IntoResponse::into_response),
        Err(error) => {
            error!(%error, "cannot record deliveries: the task failed");
            let failure = Failure::new(Code::Internal, "cannot record the deliveries");
            Err(ApiError(failure).into_response())
        }
    }
}

/// Reads the body, unless it is too long. Rejects a too long content-length before it reads.
async fn read_body(body: Body) -> Result<Bytes, Response> {
    let too_long = || {
        let failure = invalid(format!("the body is longer than {MAX_BODY} bytes"));
        (StatusCode::PAYLOAD_TOO_LARGE, Json(failure.0)).into_response()
    };
    let longest = u64::try_from(MAX_BODY).unwrap_or(u64::MAX);
    if body.size_hint().lower() > longest {
        return Err(too_long());
    }
    // Of a broken connection, the response is lost anyway.
    axum::body::to_bytes(body, MAX_BODY)
        .await
        .map_err(|_| too_long())
}

fn parse(body: &Bytes) -> Result<Vec<IntakeRequest>, ApiError> {
    let requests: Vec<IntakeRequest> = serde_json::from_slice(body)
        .map_err(|error| invalid(format!("the deliveries cannot be read: {error}")))?;
    if requests.len() > MAX_BATCH {
        let count = requests.len();
        return Err(invalid(format!(
            "{count} deliveries in one call; the limit is {MAX_BATCH}"
        )));
    }
    Ok(requests)
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError(Failure::new(Code::InvalidRequest, message))
}

impl Intake {
    /// Records requests and returns their answers, in the same order.
    async fn record(&self, requests: Vec<IntakeRequest>) -> Result<Vec<IntakeAnswer>, ApiError> {
        let mut new = Vec::new();
        // `None` is the place of a recorded delivery's answer.
        let mut answers = Vec::new();
        for request in requests {
            match request.event {
                IntakeEvent::PullRequest(event) => {
                    answers.push(None);
                    new.push((DeliveryEvent::PullRequest(event), request.received_at));
                }
                IntakeEvent::Command(event) => {
                    answers.push(None);
                    new.push((DeliveryEvent::Command(event), request.received_at));
                }
                IntakeEvent::Repository(event) => {
                    answers.push(Some(self.note_repository(&event).await?));
                }
                IntakeEvent::Ping(ping) => {
                    let noted = self.store.record_ping(ping, request.received_at).await;
                    answers.push(Some(match noted {
                        Ok(()) => IntakeAnswer::Noted,
                        Err(error) => failed(&error)?,
                    }));
                }
            }
        }
        let mut recorded = self.record_deliveries(new).await?.into_iter();
        let answers = answers.into_iter();
        Ok(answers
            .filter_map(|answer| answer.or_else(|| recorded.next()))
            .collect())
    }

    async fn record_deliveries(
        &self,
        events: Vec<(DeliveryEvent, Timestamp)>,
    ) -> Result<Vec<IntakeAnswer>, ApiError> {
        let slugs = events
            .iter()
            .map(|(event, _)| slug_of(event.pull_request()));
        let preferred: Vec<_> = slugs.collect();
        let new = events
            .into_iter()
            .zip(&preferred)
            .map(|((event, received_at), preferred)| NewDelivery {
                slugs: match self.claims {
                    true => slug_candidates(preferred, &identity(event.pull_request())).collect(),
                    false => Vec::new(),
                },
                received_at,
                event,
            });
        match self.store.record_deliveries(new.collect()).await {
            Ok(recorded) => {
                if recorded
                    .iter()
                    .any(|one| matches!(one, Receipt::New { .. }))
                {
                    self.notifier.notify();
                }
                debug!(count = recorded.len(), "recorded deliveries");
                Ok(recorded.into_iter().zip(preferred).map(answer).collect())
            }
            Err(error) => Ok(vec![failed(&error)?; preferred.len()]),
        }
    }

    /// Records the consequence of a repository event. The previews of a deleted repository are removed. The new name of a
    /// renamed one is queried from GitHub, because an event may contain an old name.
    async fn note_repository(&self, event: &RepositoryEvent) -> Result<IntakeAnswer, ApiError> {
        let RepositoryEvent {
            action, id, name, ..
        } = event;
        let noted = match action {
            RepositoryAction::Renamed | RepositoryAction::Transferred => {
                self.store.set_repo_to_check(*id, true).await
            }
            RepositoryAction::Deleted => {
                let gone = self.store.mark_repo_deleted(*id, name).await;
                gone.map(|slugs| info!(repo = %name, previews = slugs.len(), "the repository was deleted"))
            }
        };
        match noted {
            Ok(()) => {
                self.notifier.notify();
                Ok(IntakeAnswer::Noted)
            }
            Err(error) => failed(&error),
        }
    }
}

/// Returns the answer for deliveries that cannot be recorded. A stopping daemon rejects the whole call: the webhook
/// retries it.
fn failed(error: &StoreError) -> Result<IntakeAnswer, ApiError> {
    if matches!(error, StoreError::Closed) {
        let failure = Failure::new(Code::ShuttingDown, "the daemon is stopping");
        return Err(ApiError(failure));
    }
    warn!(error = chain(error), "cannot record deliveries");
    let failure = Failure::from(error);
    Ok(IntakeAnswer::Failed { failure })
}

/// Returns the preferred name of a pull request's preview.
fn slug_of(pull_request: &PullRequest) -> GuestName {
    webhook_slug(&pull_request.repo, pull_request.number)
}

/// Returns the identity that alternative names are derived from. Independent of the case of the repository.
fn identity(pull_request: &PullRequest) -> String {
    format!("{}#{}", pull_request.repo.key(), pull_request.number)
}

fn answer((recorded, preferred): (Receipt, GuestName)) -> IntakeAnswer {
    match recorded {
        Receipt::Duplicate {
            slug,
            is_finished: true,
        } => IntakeAnswer::Duplicate {
            slug: slug.unwrap_or(preferred),
        },
        Receipt::New { slug } | Receipt::Stale { slug } | Receipt::Duplicate { slug, .. } => {
            IntakeAnswer::Accepted {
                slug: slug.unwrap_or(preferred),
            }
        }
        Receipt::SlugsTaken => IntakeAnswer::SlugCollision,
    }
}
