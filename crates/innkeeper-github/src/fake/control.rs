//! The fake's control API below `/_fake`, for programs such as the demo.
//!
//! | call | body | |
//! | --- | --- | --- |
//! | `PUT /repos/{owner}/{repo}` | `{"git": PATH}` | adds a repository |
//! | `GET /repos/{owner}/{repo}` | | returns its state |
//! | `PUT /repos/{owner}/{repo}/pulls/{number}` | [`PutPull`] | opens or changes a pull request |
//! | `POST /repos/{owner}/{repo}/pulls/{number}/events/{action}` | | delivers an event to the webhook |
//! | `POST /repos/{owner}/{repo}/pulls/{number}/comments` | [`PostComment`] | adds a comment and delivers its event to the webhook |
//! | `PUT /repos/{owner}/{repo}/permissions/{login}` | `"write"` | sets a user's permission |
//! | `PUT /accounts/{login}` | [`AccountRecord`] | adds or changes a person's account |
//! | `PUT /oauth` | [`OauthRecord`] | registers the OAuth app |
//! | `PUT /visitor` | `"octocat"` | sets the person whose browser is logged in |
//! | `PUT /hook` | [`HookTarget`] | sets the webhook |
//! | `POST /failures` | [`InjectedFailure`] | makes requests fail |
//! | `DELETE /failures` | | ends all injected failures |
//! | `GET /requests` | | returns the log of requests |

use std::path::PathBuf;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use innkeeper_model::preview::{BranchName, CommitSha, RepoName};
use serde::Deserialize;
use serde_json::json;

use super::middleware::{ErrorResponse, error_response};
use super::world::{AccountRecord, HookTarget, InjectedFailure, OauthRecord, Pull};
use super::{Shared, git, hook};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PutRepo {
    git: PathBuf,
}

/// A pull request. The head commit defaults to the branch's.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PutPull {
    head_branch: BranchName,
    #[serde(default)]
    head_sha: Option<CommitSha>,
    /// The head repository; defaults to the base repository.
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
    #[serde(default)]
    draft: bool,
}

/// A comment by a user.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PostComment {
    author: String,
    body: String,
}

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/repos/{owner}/{repo}", put(add_repo).get(show_repo))
        .route("/repos/{owner}/{repo}/pulls/{number}", put(put_pull))
        .route(
            "/repos/{owner}/{repo}/pulls/{number}/events/{action}",
            post(send_event),
        )
        .route(
            "/repos/{owner}/{repo}/pulls/{number}/comments",
            post(comment),
        )
        .route("/repos/{owner}/{repo}/permissions/{login}", put(permit))
        .route("/accounts/{login}", put(put_account))
        .route("/oauth", put(set_oauth))
        .route("/visitor", put(set_visitor))
        .route("/hook", put(set_hook))
        .route("/failures", post(fail).delete(recover))
        .route("/requests", get(requests))
}

fn name(owner: &str, repo: &str) -> Result<RepoName, ErrorResponse> {
    RepoName::parse(&format!("{owner}/{repo}")).map_err(|error| bad(&error.to_string()))
}

fn bad(message: &str) -> ErrorResponse {
    error_response(StatusCode::BAD_REQUEST, message)
}

async fn add_repo(
    State(world): State<Shared>,
    Path((owner, repo)): Path<(String, String)>,
    Json(request): Json<PutRepo>,
) -> Result<StatusCode, ErrorResponse> {
    world.lock().add_repo(name(&owner, &repo)?, request.git);
    Ok(StatusCode::NO_CONTENT)
}

async fn show_repo(
    State(world): State<Shared>,
    Path((owner, repo)): Path<(String, String)>,
) -> Result<Response, ErrorResponse> {
    let world = world.lock();
    let found = world.repos.get(&name(&owner, &repo)?);
    let found = found.ok_or_else(|| bad("unknown repository"))?;
    Ok(Json(json!(found)).into_response())
}

async fn put_pull(
    State(world): State<Shared>,
    Path((owner, repo, number)): Path<(String, String, u64)>,
    Json(request): Json<PutPull>,
) -> Result<Response, ErrorResponse> {
    let base = name(&owner, &repo)?;
    let head_repo = request.head_repo.unwrap_or_else(|| base.clone());
    let git = world
        .lock()
        .repos
        .get(&head_repo)
        .map(|repo| repo.git.clone());
    let head_sha = match (request.head_sha, git) {
        (Some(sha), _) => sha,
        (None, Some(git)) => git::branch(&git, request.head_branch.as_str())
            .await
            .ok_or_else(|| bad("unknown branch"))?,
        (None, None) => return Err(bad("head_sha is required: the head repository is unknown")),
    };
    let base_branch = BranchName::parse("main").map_err(|error| bad(&error.to_string()))?;
    let mut world = world.lock();
    let found = world.repos.get_mut(&base);
    let found = found.ok_or_else(|| bad("unknown repository"))?;
    // Keeps the text if the request omits it, and always keeps the labels.
    let former = found.pulls.get(&number).cloned();
    let (former, labels) = former.map(|pull| (pull.body, pull.labels)).unzip();
    let pull = Pull {
        title: request.title,
        body: request.body.or(former).unwrap_or_default(),
        open: !request.closed && !request.merged,
        merged: request.merged,
        author: request.author.unwrap_or_else(|| "octocat".to_owned()),
        head_repo: Some(head_repo),
        head_branch: request.head_branch,
        head_sha,
        base_branch,
        labels: labels.unwrap_or_default(),
        draft: request.draft,
    };
    let json = pull.json(&base, found.id, number);
    found.pulls.insert(number, pull);
    Ok(Json(json).into_response())
}

async fn send_event(
    State(world): State<Shared>,
    Path((owner, repo, number, action)): Path<(String, String, u64, String)>,
) -> Result<Response, ErrorResponse> {
    let name = name(&owner, &repo)?;
    let payload = world.lock().payload(&name, number, &action, "octocat");
    let payload = payload.ok_or_else(|| bad("unknown pull request"))?;
    let attempt = hook::deliver(&world, "pull_request", payload.to_string(), None).await;
    let attempt = attempt.ok_or_else(|| bad("no webhook is set: PUT /_fake/hook"))?;
    Ok(Json(attempt).into_response())
}

async fn comment(
    State(world): State<Shared>,
    Path((owner, repo, number)): Path<(String, String, u64)>,
    Json(request): Json<PostComment>,
) -> Result<Response, ErrorResponse> {
    let name = name(&owner, &repo)?;
    let PostComment { author, body } = request;
    let payload = world.lock().add_comment(&name, number, &author, &body);
    let payload = payload.ok_or_else(|| bad("unknown pull request"))?;
    let attempt = hook::deliver(&world, "issue_comment", payload.to_string(), None).await;
    let attempt = attempt.ok_or_else(|| bad("no webhook is set: PUT /_fake/hook"))?;
    Ok(Json(attempt).into_response())
}

async fn permit(
    State(world): State<Shared>,
    Path((owner, repo, login)): Path<(String, String, String)>,
    Json(permission): Json<String>,
) -> Result<StatusCode, ErrorResponse> {
    let name = name(&owner, &repo)?;
    let mut world = world.lock();
    let found = world.repos.get_mut(&name);
    let found = found.ok_or_else(|| bad("unknown repository"))?;
    found.permissions.insert(login, permission);
    Ok(StatusCode::NO_CONTENT)
}

async fn put_account(
    State(world): State<Shared>,
    Path(login): Path<String>,
    Json(account): Json<AccountRecord>,
) -> StatusCode {
    world.lock().accounts.insert(login, account);
    StatusCode::NO_CONTENT
}

async fn set_oauth(State(world): State<Shared>, Json(app): Json<OauthRecord>) -> StatusCode {
    world.lock().oauth = Some(app);
    StatusCode::NO_CONTENT
}

async fn set_visitor(State(world): State<Shared>, Json(login): Json<String>) -> StatusCode {
    world.lock().visitor = Some(login);
    StatusCode::NO_CONTENT
}

async fn set_hook(State(world): State<Shared>, Json(hook): Json<HookTarget>) -> StatusCode {
    world.lock().hook = Some(hook);
    StatusCode::NO_CONTENT
}

async fn fail(State(world): State<Shared>, Json(failure): Json<InjectedFailure>) -> StatusCode {
    world.lock().failures.push_back(failure);
    StatusCode::NO_CONTENT
}

async fn recover(State(world): State<Shared>) -> StatusCode {
    world.lock().failures.clear();
    StatusCode::NO_CONTENT
}

async fn requests(State(world): State<Shared>) -> Response {
    Json(json!(world.lock().requests)).into_response()
}
