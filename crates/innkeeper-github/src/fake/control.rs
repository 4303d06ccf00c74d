//! The fake's own calls, below `/_fake`, for programs such as the demo.
//!
//! | call | body | |
//! | --- | --- | --- |
//! | `PUT /repos/{owner}/{repo}` | `{"git": PATH}` | adds a repository |
//! | `GET /repos/{owner}/{repo}` | | all that is known of it |
//! | `PUT /repos/{owner}/{repo}/pulls/{number}` | [`WantedPull`] | opens or changes a pull request |
//! | `POST /repos/{owner}/{repo}/pulls/{number}/events/{action}` | | delivers an event to the webhook |
//! | `PUT /repos/{owner}/{repo}/permissions/{login}` | `"write"` | says what somebody may do |
//! | `PUT /hook` | [`HookTarget`] | says where events are delivered |
//! | `POST /failures` | [`Failure`] | arranges for requests to fail |
//! | `GET /requests` | | the log of requests |

use std::path::PathBuf;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use innkeeper_model::preview::{BranchName, CommitSha, RepoName};
use serde::Deserialize;
use serde_json::json;

use super::door::{Refusal, refusal};
use super::world::{Failure, HookTarget, Pull};
use super::{Shared, git, hook, lock};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedRepo {
    git: PathBuf,
}

/// What a pull request should be. Its commit is the branch's, unless one is given.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedPull {
    head_branch: BranchName,
    #[serde(default)]
    head_sha: Option<CommitSha>,
    /// The repository with its commit, when it is another one.
    #[serde(default)]
    head_repo: Option<RepoName>,
    #[serde(default)]
    title: String,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    author: Option<String>,
    #[serde(default)]
    closed: bool,
    #[serde(default)]
    merged: bool,
}

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/repos/{owner}/{repo}", put(add_repo).get(show_repo))
        .route("/repos/{owner}/{repo}/pulls/{number}", put(put_pull))
        .route(
            "/repos/{owner}/{repo}/pulls/{number}/events/{action}",
            post(send_event),
        )
        .route("/repos/{owner}/{repo}/permissions/{login}", put(permit))
        .route("/hook", put(set_hook))
        .route("/failures", post(fail))
        .route("/requests", get(requests))
}

fn name(owner: &str, repo: &str) -> Result<RepoName, Refusal> {
    RepoName::parse(&format!("{owner}/{repo}")).map_err(|error| bad(&error.to_string()))
}

fn bad(message: &str) -> Refusal {
    refusal(StatusCode::BAD_REQUEST, message)
}

async fn add_repo(
    State(world): State<Shared>,
    Path((owner, repo)): Path<(String, String)>,
    Json(wanted): Json<WantedRepo>,
) -> Result<StatusCode, Refusal> {
    lock(&world).add_repo(name(&owner, &repo)?, wanted.git);
    Ok(StatusCode::NO_CONTENT)
}

async fn show_repo(
    State(world): State<Shared>,
    Path((owner, repo)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let world = lock(&world);
    let there = world.repos.get(&name(&owner, &repo)?);
    let there = there.ok_or_else(|| bad("there is no such repository"))?;
    Ok(Json(json!(there)).into_response())
}

async fn put_pull(
    State(world): State<Shared>,
    Path((owner, repo, number)): Path<(String, String, u64)>,
    Json(wanted): Json<WantedPull>,
) -> Result<Response, Refusal> {
    let base = name(&owner, &repo)?;
    let head_repo = wanted.head_repo.unwrap_or_else(|| base.clone());
    let git = lock(&world)
        .repos
        .get(&head_repo)
        .map(|repo| repo.git.clone());
    let head_sha = match (wanted.head_sha, git) {
        (Some(sha), _) => sha,
        (None, Some(git)) => git::branch(&git, wanted.head_branch.as_str())
            .await
            .ok_or_else(|| bad("there is no such branch"))?,
        (None, None) => return Err(bad("give head_sha: the head repository is unknown")),
    };
    let base_branch = BranchName::parse("main").map_err(|error| bad(&error.to_string()))?;
    let mut world = lock(&world);
    let there = world.repos.get_mut(&base);
    let there = there.ok_or_else(|| bad("there is no such repository"))?;
    // An edit that says nothing of the text leaves it as it is, and none changes the labels.
    let former = there.pulls.get(&number).cloned();
    let (former, labels) = former.map(|pull| (pull.body, pull.labels)).unzip();
    let pull = Pull {
        title: wanted.title,
        body: wanted.body.or(former).unwrap_or_default(),
        open: !wanted.closed && !wanted.merged,
        merged: wanted.merged,
        author: wanted.author.unwrap_or_else(|| "octocat".to_owned()),
        head_repo: Some(head_repo),
        head_branch: wanted.head_branch,
        head_sha,
        base_branch,
        labels: labels.unwrap_or_default(),
    };
    let json = pull.json(&base, there.id, number);
    there.pulls.insert(number, pull);
    Ok(Json(json).into_response())
}

async fn send_event(
    State(world): State<Shared>,
    Path((owner, repo, number, action)): Path<(String, String, u64, String)>,
) -> Result<Response, Refusal> {
    let name = name(&owner, &repo)?;
    let payload = lock(&world).payload(&name, number, &action, "octocat");
    let payload = payload.ok_or_else(|| bad("there is no such pull request"))?;
    let attempt = hook::deliver(&world, "pull_request", payload.to_string(), None).await;
    let attempt = attempt.ok_or_else(|| bad("there is no webhook: PUT /_fake/hook"))?;
    Ok(Json(attempt).into_response())
}

async fn permit(
    State(world): State<Shared>,
    Path((owner, repo, login)): Path<(String, String, String)>,
    Json(permission): Json<String>,
) -> Result<StatusCode, Refusal> {
    let name = name(&owner, &repo)?;
    let mut world = lock(&world);
    let there = world.repos.get_mut(&name);
    let there = there.ok_or_else(|| bad("there is no such repository"))?;
    there.permissions.insert(login, permission);
    Ok(StatusCode::NO_CONTENT)
}

async fn set_hook(State(world): State<Shared>, Json(hook): Json<HookTarget>) -> StatusCode {
    lock(&world).hook = Some(hook);
    StatusCode::NO_CONTENT
}

async fn fail(State(world): State<Shared>, Json(failure): Json<Failure>) -> StatusCode {
    lock(&world).failures.push_back(failure);
    StatusCode::NO_CONTENT
}

async fn requests(State(world): State<Shared>) -> Response {
    Json(json!(lock(&world).requests)).into_response()
}
