//! The one call: have deliveries recorded.

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
    PullRequest, PullRequestEvent, RepositoryAction, RepositoryEvent, slug_candidates, webhook_slug,
};
use innkeeper_model::{Code, Failure, GuestName, chain};
use innkeeper_store::{NewDelivery, Receipt, Store, StoreError};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{Bell, Listener};
use crate::api::Refusal;

/// What the call needs.
#[derive(Clone)]
struct Intake {
    store: Store,
    bell: Bell,
}

/// Takes deliveries until `stopping`, then ends the calls under way. Each recorded delivery rings the bell.
pub(crate) async fn serve(
    listener: Listener,
    store: Store,
    bell: Bell,
    stopping: CancellationToken,
) {
    let served = axum::serve(listener, router(Intake { store, bell }))
        .with_graceful_shutdown(stopping.cancelled_owned())
        .await;
    if let Err(error) = served {
        error!(%error, "no deliveries are taken any more");
    }
}

fn router(intake: Intake) -> Router {
    Router::new()
        .route(INTAKE_PATH, post(deliveries))
        .fallback(async || invalid("there is no such call; this socket only takes deliveries"))
        .with_state(intake)
}

/// Records a list of deliveries and answers when all of them are on disk.
async fn deliveries(
    State(intake): State<Intake>,
    request: Request,
) -> Result<Json<Vec<IntakeAnswer>>, Response> {
    let body = whole(request.into_body()).await?;
    let requests = read(&body).map_err(IntoResponse::into_response)?;
    // The webhook may have no time left and be gone; what it handed over is recorded all the same, and the
    // bell rings for it: this task does not end with the connection.
    let recording = tokio::spawn(async move { intake.record(requests).await });
    match recording.await {
        Ok(answer) => answer.map(Json).map_err(IntoResponse::into_response),
        Err(error) => {
            error!(%error, "deliveries were not recorded");
            let failure = Failure::new(Code::Internal, "the recording ended early");
            Err(Refusal(failure).into_response())
        }
    }
}

/// Reads the body, unless it is too long. What is announced to be too long is not waited for.
async fn whole(body: Body) -> Result<Bytes, Response> {
    let too_long = || {
        let failure = invalid(format!("the body is longer than {MAX_BODY} bytes"));
        (StatusCode::PAYLOAD_TOO_LARGE, Json(failure.0)).into_response()
    };
    let longest = u64::try_from(MAX_BODY).unwrap_or(u64::MAX);
    if body.size_hint().lower() > longest {
        return Err(too_long());
    }
    // Nobody hears the answer when the connection broke.
    axum::body::to_bytes(body, MAX_BODY)
        .await
        .map_err(|_| too_long())
}

fn read(body: &Bytes) -> Result<Vec<IntakeRequest>, Refusal> {
    let requests: Vec<IntakeRequest> = serde_json::from_slice(body)
        .map_err(|error| invalid(format!("the deliveries cannot be read: {error}")))?;
    if requests.len() > MAX_BATCH {
        let count = requests.len();
        return Err(invalid(format!(
            "{count} deliveries in one call; at most {MAX_BATCH} are taken"
        )));
    }
    Ok(requests)
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal(Failure::new(Code::InvalidRequest, message))
}

impl Intake {
    /// What became of each, in their order.
    async fn record(&self, requests: Vec<IntakeRequest>) -> Result<Vec<IntakeAnswer>, Refusal> {
        let mut new = Vec::new();
        // Where pull requests stand among the answers; the rest is about repositories.
        let mut answers = Vec::new();
        for request in requests {
            match request.event {
                IntakeEvent::PullRequest(event) => {
                    answers.push(None);
                    new.push((slug_of(&event.pull_request), event, request.received_at));
                }
                IntakeEvent::Repository(event) => {
                    answers.push(Some(self.note_repository(&event).await?));
                }
            }
        }
        let mut recorded = self.record_pull_requests(new).await?.into_iter();
        let answers = answers.into_iter();
        Ok(answers
            .filter_map(|answer| answer.or_else(|| recorded.next()))
            .collect())
    }

    async fn record_pull_requests(
        &self,
        events: Vec<(GuestName, Box<PullRequestEvent>, Timestamp)>,
    ) -> Result<Vec<IntakeAnswer>, Refusal> {
        let wanted: Vec<_> = events.iter().map(|(slug, ..)| slug.clone()).collect();
        let new = events
            .into_iter()
            .map(|(wanted, event, received_at)| NewDelivery {
                slugs: slug_candidates(&wanted, &identity(&event.pull_request)).collect(),
                received_at,
                event: *event,
            });
        match self.store.record_deliveries(new.collect()).await {
            Ok(recorded) => {
                if recorded
                    .iter()
                    .any(|one| matches!(one, Receipt::New { .. }))
                {
                    self.bell.ring();
                }
                debug!(count = recorded.len(), "deliveries are on disk");
                Ok(recorded.into_iter().zip(wanted).map(answer).collect())
            }
            Err(error) => Ok(vec![failed(&error)?; wanted.len()]),
        }
    }

    /// Records what follows from an event of a repository: the previews of one that was deleted should go, and GitHub
    /// is to be queried for the name of another. An event's own name may be an old one.
    async fn note_repository(&self, event: &RepositoryEvent) -> Result<IntakeAnswer, Refusal> {
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
                self.bell.ring();
                Ok(IntakeAnswer::Noted)
            }
            Err(error) => failed(&error),
        }
    }
}

/// The answer for what could not be recorded. A daemon that stops refuses the whole call, which is sent again then.
fn failed(error: &StoreError) -> Result<IntakeAnswer, Refusal> {
    if matches!(error, StoreError::Closed) {
        let failure = Failure::new(Code::ShuttingDown, "the daemon is stopping");
        return Err(Refusal(failure));
    }
    warn!(error = chain(error), "deliveries could not be recorded");
    let failure = Failure::from(error);
    Ok(IntakeAnswer::Failed { failure })
}

/// The name that a pull request's preview has unless it is taken.
fn slug_of(pull_request: &PullRequest) -> GuestName {
    webhook_slug(&pull_request.repo, pull_request.number)
}

/// Whose name it is, the same however the repository is written.
fn identity(pull_request: &PullRequest) -> String {
    format!("{}#{}", pull_request.repo.key(), pull_request.number)
}

fn answer((recorded, wanted): (Receipt, GuestName)) -> IntakeAnswer {
    match recorded {
        Receipt::New { slug } | Receipt::Stale { slug } => IntakeAnswer::Accepted {
            slug: slug.unwrap_or(wanted),
        },
        Receipt::Duplicate { slug } => IntakeAnswer::Duplicate {
            slug: slug.unwrap_or(wanted),
        },
        Receipt::SlugsTaken => IntakeAnswer::SlugCollision,
    }
}
