//! The handlers of deployments and their statuses.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use innkeeper_model::preview::CommitSha;
use serde_json::{Value, json};

use super::api::{ApiResult, NumberPath, Page, RepoPath, not_found, unprocessable, with_repo};
use super::world::DeploymentRecord;
use super::{Shared, git};

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route(
            "/repos/{owner}/{repo}/deployments",
            get(deployments).post(deploy),
        )
        .route(
            "/repos/{owner}/{repo}/deployments/{id}/statuses",
            get(statuses).post(set_status),
        )
}

async fn deployments(
    State(world): State<Shared>,
    Path((owner, repo)): RepoPath,
    Query(page): Query<Page>,
) -> ApiResult {
    with_repo(&world, &owner, &repo, |repo, _| {
        let in_environment = |d: &&DeploymentRecord| {
            page.environment
                .as_ref()
                .is_none_or(|environment| *environment == d.environment)
        };
        let newest = repo.deployments.iter().rev().filter(in_environment);
        let all: Vec<Value> = newest.take(page.per_page).map(deployment_json).collect();
        Json(all).into_response()
    })
}

fn deployment_json(deployment: &DeploymentRecord) -> Value {
    json!({
        "id": deployment.id,
        "sha": deployment.sha,
        "environment": deployment.environment,
    })
}

async fn deploy(
    State(world): State<Shared>,
    Path((owner, repo)): RepoPath,
    Json(body): Json<Value>,
) -> ApiResult {
    let git = with_repo(&world, &owner, &repo, |repo, _| repo.git.clone())?;
    let sha = CommitSha::parse(body["ref"].as_str().unwrap_or_default());
    let sha = sha.map_err(|_| unprocessable())?;
    if !git::has_commit(&git, &sha).await {
        return Err(unprocessable());
    }
    with_repo(&world, &owner, &repo, |repo, id| {
        let deployment = DeploymentRecord {
            id,
            sha,
            environment: body["environment"]
                .as_str()
                .unwrap_or("production")
                .to_owned(),
            statuses: Vec::new(),
        };
        let json = deployment_json(&deployment);
        repo.deployments.push(deployment);
        (StatusCode::CREATED, Json(json)).into_response()
    })
}

async fn statuses(
    State(world): State<Shared>,
    Path((owner, repo, id)): NumberPath,
    Query(page): Query<Page>,
) -> ApiResult {
    with_repo(&world, &owner, &repo, |repo, _| {
        let deployment = repo.deployments.iter().find(|d| d.id == id);
        let newest = deployment.ok_or_else(not_found)?.statuses.iter().rev();
        let all: Vec<&Value> = newest.take(page.per_page).collect();
        Ok(Json(all).into_response())
    })?
}

async fn set_status(
    State(world): State<Shared>,
    Path((owner, repo, id)): NumberPath,
    Json(status): Json<Value>,
) -> ApiResult {
    with_repo(&world, &owner, &repo, |repo, _| {
        let deployment = repo.deployments.iter_mut().find(|d| d.id == id);
        deployment
            .ok_or_else(not_found)?
            .statuses
            .push(status.clone());
        Ok((StatusCode::CREATED, Json(status)).into_response())
    })?
}
