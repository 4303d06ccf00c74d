//! The handlers of commit statuses and check runs.

use axum::extract::{Extension, Path, Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, patch, post};
use axum::{Json, Router};
use innkeeper_model::preview::CommitSha;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::api::{ApiResult, NumberPath, RepoPath, not_found, with_repo};
use super::middleware::{Caller, ErrorResponse, error_response};
use super::world::{CheckRunRecord, StatusRecord};

type CommitPath = Path<(String, String, String)>;

#[derive(Deserialize)]
struct Filter {
    #[serde(default)]
    check_name: Option<String>,
}

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/repos/{owner}/{repo}/statuses/{sha}", post(set_status))
        .route(
            "/repos/{owner}/{repo}/commits/{sha}/statuses",
            get(statuses),
        )
        .route(
            "/repos/{owner}/{repo}/commits/{sha}/check-runs",
            get(check_runs),
        )
        .route("/repos/{owner}/{repo}/check-runs", post(create_run))
        .route("/repos/{owner}/{repo}/check-runs/{id}", patch(update_run))
}

fn commit(sha: &str) -> Result<CommitSha, ErrorResponse> {
    CommitSha::parse(sha).map_err(|_| not_found())
}

/// Returns the App's slug. Only Apps may write check runs.
fn app_of(caller: &Caller) -> Result<String, ErrorResponse> {
    let slug = caller.login().strip_suffix("[bot]").map(str::to_owned);
    slug.ok_or_else(|| {
        let message = "You must authenticate via a GitHub App.";
        error_response(StatusCode::FORBIDDEN, message)
    })
}

/// Checks a check run as GitHub does: a conclusion belongs to a completed run.
fn check_run(run: &Value) -> Result<(), ErrorResponse> {
    let is_completed = run["status"] == "completed";
    if is_completed == run["conclusion"].is_string() {
        return Ok(());
    }
    let message = "Invalid request: status and conclusion do not match";
    Err(error_response(StatusCode::UNPROCESSABLE_ENTITY, message))
}

async fn set_status(
    State(world): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path((owner, repo, sha)): CommitPath,
    Json(status): Json<Value>,
) -> ApiResult {
    let sha = commit(&sha)?;
    let states = ["pending", "success", "failure", "error"];
    if !states.iter().any(|state| status["state"] == *state) {
        let message = "State is not included in the list";
        return Err(error_response(StatusCode::UNPROCESSABLE_ENTITY, message));
    }
    with_repo(&world, &owner, &repo, |repo, _| {
        repo.statuses.push(StatusRecord {
            sha,
            creator: caller.login().to_owned(),
            status: status.clone(),
        });
        (StatusCode::CREATED, Json(status)).into_response()
    })
}

async fn statuses(State(world): State<Shared>, Path((owner, repo, sha)): CommitPath) -> ApiResult {
    let sha = commit(&sha)?;
    with_repo(&world, &owner, &repo, |repo, _| {
        let newest = repo.statuses.iter().rev().filter(|one| one.sha == sha);
        let json = newest.map(|one| {
            let mut json = one.status.clone();
            json["creator"] = json!({ "login": one.creator });
            json
        });
        Json(json.collect::<Vec<_>>()).into_response()
    })
}

async fn check_runs(
    State(world): State<Shared>,
    Path((owner, repo, sha)): CommitPath,
    Query(filter): Query<Filter>,
) -> ApiResult {
    let sha = commit(&sha)?;
    with_repo(&world, &owner, &repo, |repo, _| {
        let matches = |one: &&CheckRunRecord| {
            let name = filter.check_name.as_deref();
            one.sha == sha && name.is_none_or(|name| one.run["name"] == name)
        };
        let runs: Vec<_> = repo.check_runs.iter().filter(matches).map(json).collect();
        Json(json!({ "total_count": runs.len(), "check_runs": runs })).into_response()
    })
}

async fn create_run(
    State(world): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path((owner, repo)): RepoPath,
    Json(run): Json<Value>,
) -> ApiResult {
    check_run(&run)?;
    let sha = commit(run["head_sha"].as_str().unwrap_or_default())?;
    let app = app_of(&caller)?;
    with_repo(&world, &owner, &repo, |repo, id| {
        let record = CheckRunRecord { id, sha, app, run };
        let json = json(&record);
        repo.check_runs.push(record);
        (StatusCode::CREATED, Json(json)).into_response()
    })
}

async fn update_run(
    State(world): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path((owner, repo, id)): NumberPath,
    Json(changes): Json<Value>,
) -> ApiResult {
    check_run(&changes)?;
    let app = app_of(&caller)?;
    with_repo(&world, &owner, &repo, |repo, _| {
        let mut runs = repo.check_runs.iter_mut();
        let found = runs.find(|run| run.id == id && run.app == app);
        let found = found.ok_or_else(not_found)?;
        for (field, value) in changes.as_object().into_iter().flatten() {
            found.run[field] = value.clone();
        }
        Ok(Json(json(found)).into_response())
    })?
}

fn json(record: &CheckRunRecord) -> Value {
    let mut json = record.run.clone();
    json["id"] = record.id.into();
    json["app"] = json!({ "slug": record.app });
    json
}
