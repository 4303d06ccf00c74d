//! The handlers of GitHub's API.

use std::collections::BTreeSet;

use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use innkeeper_model::preview::{CommitSha, RepoName};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::middleware::{Caller, ErrorResponse, error_response};
use super::world::{CommentRecord, Repo, Rights, repo_json};
use super::{Shared, World, git, hook};

pub(super) type ApiResult = Result<Response, ErrorResponse>;
pub(super) type RepoPath = Path<(String, String)>;
pub(super) type NumberPath = Path<(String, String, u64)>;

#[derive(Deserialize)]
pub(super) struct Page {
    #[serde(default = "first")]
    page: usize,
    #[serde(default = "thirty")]
    pub(super) per_page: usize,
    #[serde(default)]
    pub(super) environment: Option<String>,
    #[serde(default)]
    state: Option<String>,
    #[serde(default, rename = "ref")]
    reference: Option<String>,
    #[serde(default)]
    recursive: Option<String>,
}

fn first() -> usize {
    1
}

fn thirty() -> usize {
    30
}

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/app", get(app))
        .route("/app/installations/{id}", get(installation))
        .route(
            "/app/installations/{id}/access_tokens",
            post(installation_token),
        )
        .route("/app/hook/config", get(app_hook))
        .route("/app/hook/deliveries", get(deliveries))
        .route("/app/hook/deliveries/{id}/attempts", post(redeliver))
        .route("/user", get(user))
        .route("/installation/repositories", get(installation_repositories))
        .route("/repos/{owner}/{repo}", get(repository))
        .route("/repositories/{id}", get(repository_by_id))
        .route("/repos/{owner}/{repo}/contents/{*path}", get(contents))
        .route("/repos/{owner}/{repo}/git/ref/heads/{*branch}", get(branch))
        .route("/repos/{owner}/{repo}/git/commits/{sha}", get(commit))
        .route("/repos/{owner}/{repo}/git/trees/{sha}", get(tree))
        .route("/repos/{owner}/{repo}/git/blobs/{sha}", get(blob))
        .route("/repos/{owner}/{repo}/pulls", get(pulls))
        .route(
            "/repos/{owner}/{repo}/pulls/{number}",
            get(pull).patch(edit_pull),
        )
        .route(
            "/repos/{owner}/{repo}/collaborators/{login}/permission",
            get(permission),
        )
        .route(
            "/repos/{owner}/{repo}/issues/{number}/comments",
            get(comments).post(comment),
        )
        .route(
            "/repos/{owner}/{repo}/issues/comments/{id}",
            get(one_comment).patch(edit_comment).delete(delete_comment),
        )
        .route("/repos/{owner}/{repo}/hooks", get(repo_hooks))
        .route(
            "/repos/{owner}/{repo}/hooks/{id}/deliveries",
            get(repo_deliveries),
        )
        .route(
            "/repos/{owner}/{repo}/hooks/{id}/deliveries/{delivery}/attempts",
            post(redeliver_of_repo),
        )
        .fallback(async || not_found())
}

async fn app(State(world): State<Shared>) -> Response {
    let slug = world.lock().app.as_ref().map(|app| app.slug.clone());
    Json(json!({ "slug": slug })).into_response()
}

async fn installation(State(world): State<Shared>, Path(id): Path<u64>) -> ApiResult {
    let world = world.lock();
    let app = world.app.as_ref().filter(|app| app.installation == id);
    let app = app.ok_or_else(not_found)?;
    let body = json!({ "id": id, "permissions": app.permissions, "events": app.events });
    Ok(Json(body).into_response())
}

async fn user(State(world): State<Shared>, Extension(caller): Extension<Caller>) -> ApiResult {
    if caller.login().ends_with("[bot]") {
        let message = "Resource not accessible by integration";
        return Err(error_response(StatusCode::FORBIDDEN, message));
    }
    let account = world
        .lock()
        .accounts
        .get(caller.login())
        .map(|account| account.id);
    let body = json!({ "login": caller.login(), "id": account.unwrap_or(1) });
    let mut response = Json(body).into_response();
    if let Caller::Token(rights) = &caller
        && let Some(scopes) = &rights.scopes
        && let Ok(scopes) = scopes.parse()
    {
        response.headers_mut().insert("x-oauth-scopes", scopes);
    }
    Ok(response)
}

async fn installation_token(
    State(world): State<Shared>,
    Path(id): Path<u64>,
    Json(request): Json<Value>,
) -> ApiResult {
    let mut world = world.lock();
    let serial = world.id();
    let app = world.app.as_ref().filter(|app| app.installation == id);
    let app = app.ok_or_else(not_found)?;
    let expires_at = Timestamp::now() + app.token_lifetime;
    let app_lacks = app.lacks.clone();
    let repos = match request["repositories"].as_array() {
        None => None,
        Some(names) => Some(narrowed(&world, names)?),
    };
    let json = |name: &RepoName| Some(repo_json(name, world.repos.get(name)?.id));
    let listed: Option<Vec<_>> = repos
        .as_ref()
        .map(|repos| repos.iter().filter_map(json).collect());
    let token = format!("ghs_fake{serial}");
    let rights = Rights {
        login: format!("{}[bot]", app.slug),
        expires_at: Some(expires_at),
        read_only: request["permissions"] == json!({ "contents": "read" }),
        scopes: None,
        repos,
        lacks: app_lacks,
    };
    world.tokens.insert(token.clone(), rights);
    let mut body = json!({ "token": token, "expires_at": expires_at });
    if let Some(repositories) = listed {
        body["repositories"] = repositories.into();
    }
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

fn narrowed(world: &World, names: &[Value]) -> Result<BTreeSet<RepoName>, ErrorResponse> {
    let find = |name: &Value| {
        let found = world.repos.keys().find(|repo| *name == repo.name());
        found.cloned().ok_or_else(|| {
            let message = "There is at least one repository that does not exist";
            error_response(StatusCode::UNPROCESSABLE_ENTITY, message)
        })
    };
    names.iter().map(find).collect()
}

async fn installation_repositories(
    State(world): State<Shared>,
    Query(page): Query<Page>,
    headers: HeaderMap,
) -> Response {
    let world = world.lock();
    let repos = world.repos.iter();
    let all: Vec<Value> = repos.map(|(name, repo)| repo_json(name, repo.id)).collect();
    let total = all.len();
    paged(
        &world,
        &page,
        &headers,
        "/installation/repositories?",
        all,
        |repositories| json!({ "total_count": total, "repositories": repositories }),
    )
}

async fn repository(State(world): State<Shared>, Path((owner, repo)): RepoPath) -> ApiResult {
    let name = name(&owner, &repo)?;
    let world = world.lock();
    let found = world.repos.get(&name).ok_or_else(not_found)?;
    let mut json = repo_json(&name, found.id);
    json["archived"] = found.archived.into();
    json["private"] = found.private.into();
    Ok(Json(json).into_response())
}

async fn repository_by_id(State(world): State<Shared>, Path(id): Path<u64>) -> ApiResult {
    let world = world.lock();
    let found = world.repos.iter().find(|(_, repo)| repo.id == id);
    let (name, found) = found.ok_or_else(not_found)?;
    let mut json = repo_json(name, id);
    json["private"] = found.private.into();
    Ok(Json(json).into_response())
}

async fn contents(
    State(world): State<Shared>,
    Path((owner, repo, path)): Path<(String, String, String)>,
    Query(page): Query<Page>,
) -> ApiResult {
    let git = with_repo(&world, &owner, &repo, |repo, _| repo.git.clone())?;
    let sha = CommitSha::parse(&page.reference.unwrap_or_default()).map_err(|_| not_found())?;
    let file = git::file(&git, &sha, &path).await.ok_or_else(not_found)?;
    let kind = [(
        header::CONTENT_TYPE,
        "application/vnd.github.raw+json; charset=utf-8",
    )];
    Ok((kind, file).into_response())
}

async fn branch(
    State(world): State<Shared>,
    Path((owner, repo, branch)): Path<(String, String, String)>,
) -> ApiResult {
    let git = with_repo(&world, &owner, &repo, |repo, _| repo.git.clone())?;
    let sha = git::branch(&git, &branch).await.ok_or_else(not_found)?;
    let body = json!({
        "ref": format!("refs/heads/{branch}"),
        "object": { "type": "commit", "sha": sha },
    });
    Ok(Json(body).into_response())
}

async fn commit(
    State(world): State<Shared>,
    Path((owner, repo, sha)): Path<(String, String, String)>,
) -> ApiResult {
    let git = with_repo(&world, &owner, &repo, |repo, _| repo.git.clone())?;
    let sha = CommitSha::parse(&sha).map_err(|_| not_found())?;
    if !git::has_commit(&git, &sha).await {
        return Err(not_found());
    }
    Ok(Json(json!({ "sha": sha })).into_response())
}

async fn tree(
    State(world): State<Shared>,
    Path((owner, repo, sha)): Path<(String, String, String)>,
    Query(page): Query<Page>,
) -> ApiResult {
    let git = with_repo(&world, &owner, &repo, |repo, _| repo.git.clone())?;
    let sha = CommitSha::parse(&sha).map_err(|_| not_found())?;
    // GitHub looks at the parameter's presence only.
    let entries = git::tree(&git, &sha, page.recursive.is_some()).await;
    let mut entries = entries.ok_or_else(not_found)?;
    let limit = world.lock().tree_limit.unwrap_or(100_000);
    let truncated = entries.len() > limit;
    entries.truncate(limit);
    Ok(Json(json!({ "sha": sha, "tree": entries, "truncated": truncated })).into_response())
}

async fn blob(
    State(world): State<Shared>,
    Path((owner, repo, sha)): Path<(String, String, String)>,
) -> ApiResult {
    let git = with_repo(&world, &owner, &repo, |repo, _| repo.git.clone())?;
    let sha = CommitSha::parse(&sha).map_err(|_| not_found())?;
    let file = git::blob(&git, &sha).await.ok_or_else(not_found)?;
    let kind = [(
        header::CONTENT_TYPE,
        "application/vnd.github.raw+json; charset=utf-8",
    )];
    Ok((kind, file).into_response())
}

async fn pulls(
    State(world): State<Shared>,
    Path((owner, repo)): RepoPath,
    Query(page): Query<Page>,
    headers: HeaderMap,
) -> ApiResult {
    let name = name(&owner, &repo)?;
    let world = world.lock();
    let found = world.repos.get(&name).ok_or_else(not_found)?;
    let all = found
        .pulls
        .iter()
        .rev()
        .filter(|(_, pull)| pull.open || page.state.as_deref() == Some("all"))
        .map(|(number, pull)| {
            let mut json = found.pull_json(&name, pull, *number);
            // Lists omit this field.
            if let Some(fields) = json.as_object_mut() {
                fields.remove("merged");
            }
            json
        })
        .collect();
    let path = format!("/repos/{name}/pulls?state=open&");
    Ok(paged(&world, &page, &headers, &path, all, Value::from))
}

async fn pull(State(world): State<Shared>, Path((owner, repo, number)): NumberPath) -> ApiResult {
    let name = name(&owner, &repo)?;
    with_repo(&world, &owner, &repo, |repo, _| {
        let pull = repo.pulls.get(&number).ok_or_else(not_found)?;
        let mut json = repo.pull_json(&name, pull, number);
        json["locked"] = repo.locked.contains(&number).into();
        Ok(Json(json).into_response())
    })?
}

async fn edit_pull(
    State(world): State<Shared>,
    Path((owner, repo, number)): NumberPath,
    Json(edit): Json<Value>,
) -> ApiResult {
    let name = name(&owner, &repo)?;
    with_repo(&world, &owner, &repo, |repo, _| {
        let pull = repo.pulls.get_mut(&number).ok_or_else(not_found)?;
        if let Some(body) = edit["body"].as_str() {
            body.clone_into(&mut pull.body);
        }
        Ok(Json(pull.json(&name, repo.id, number)).into_response())
    })?
}

async fn permission(
    State(world): State<Shared>,
    Path((owner, repo, login)): Path<(String, String, String)>,
) -> ApiResult {
    with_repo(&world, &owner, &repo, |repo, _| {
        let permission = repo.permissions.get(&login).ok_or_else(not_found)?;
        let body = json!({ "permission": permission, "user": { "login": login } });
        Ok(Json(body).into_response())
    })?
}

async fn comments(
    State(world): State<Shared>,
    Path((owner, repo, number)): NumberPath,
    Query(page): Query<Page>,
    headers: HeaderMap,
) -> ApiResult {
    let name = name(&owner, &repo)?;
    let world = world.lock();
    let found = world.repos.get(&name).ok_or_else(not_found)?;
    let of_issue = found.comments.iter().filter(|c| c.issue == number);
    let all = of_issue.map(comment_json).collect();
    let path = format!("/repos/{name}/issues/{number}/comments?");
    Ok(paged(&world, &page, &headers, &path, all, Value::from))
}

fn comment_json(comment: &CommentRecord) -> Value {
    json!({
        "id": comment.id,
        "user": { "login": comment.author },
        "body": comment.body,
        "issue_url": format!("https://api.github.com/repos/octo/web/issues/{}", comment.issue),
    })
}

async fn one_comment(
    State(world): State<Shared>,
    Path((owner, repo, id)): NumberPath,
) -> ApiResult {
    with_repo(&world, &owner, &repo, |repo, _| {
        let comment = repo.comments.iter().find(|comment| comment.id == id);
        let comment = comment.ok_or_else(not_found)?;
        Ok(Json(comment_json(comment)).into_response())
    })?
}

async fn comment(
    State(world): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path((owner, repo, number)): NumberPath,
    Json(body): Json<Value>,
) -> ApiResult {
    with_repo(&world, &owner, &repo, |repo, id| {
        repo.pulls.get(&number).ok_or_else(not_found)?;
        if repo.locked.contains(&number) {
            let message = "Unable to create comment because issue is locked.";
            return Err(error_response(StatusCode::FORBIDDEN, message));
        }
        let comment = CommentRecord {
            id,
            issue: number,
            author: caller.login().to_owned(),
            body: body["body"].as_str().unwrap_or_default().to_owned(),
            reactions: Vec::new(),
        };
        let json = comment_json(&comment);
        repo.comments.push(comment);
        Ok((StatusCode::CREATED, Json(json)).into_response())
    })?
}

async fn edit_comment(
    State(world): State<Shared>,
    Path((owner, repo, id)): NumberPath,
    Json(body): Json<Value>,
) -> ApiResult {
    with_repo(&world, &owner, &repo, |repo, _| {
        let comment = repo.comments.iter_mut().find(|c| c.id == id);
        let comment = comment.ok_or_else(not_found)?;
        body["body"]
            .as_str()
            .unwrap_or_default()
            .clone_into(&mut comment.body);
        Ok(Json(comment_json(comment)).into_response())
    })?
}

async fn delete_comment(
    State(world): State<Shared>,
    Path((owner, repo, id)): NumberPath,
) -> ApiResult {
    with_repo(&world, &owner, &repo, |repo, _| {
        let before = repo.comments.len();
        repo.comments.retain(|comment| comment.id != id);
        if repo.comments.len() == before {
            return Err(not_found());
        }
        Ok(StatusCode::NO_CONTENT.into_response())
    })?
}

async fn repo_hooks(State(world): State<Shared>, Path((owner, repo)): RepoPath) -> ApiResult {
    let name = name(&owner, &repo)?;
    let world = world.lock();
    world.repos.get(&name).ok_or_else(not_found)?;
    let hooks = world.hook.iter();
    let hooks: Vec<Value> = hooks
        .map(|hook| json!({ "id": 1, "config": { "url": hook.url } }))
        .collect();
    Ok(Json(hooks).into_response())
}

async fn app_hook(State(world): State<Shared>) -> Response {
    let url = world.lock().hook.as_ref().map(|hook| hook.url.clone());
    Json(json!({ "url": url.unwrap_or_default(), "content_type": "json" })).into_response()
}

async fn deliveries(
    State(world): State<Shared>,
    Query(page): Query<Page>,
    headers: HeaderMap,
) -> Response {
    let world = world.lock();
    let newest = world.attempts.iter().rev();
    let all = newest.map(|attempt| json!(attempt)).collect();
    paged(
        &world,
        &page,
        &headers,
        "/app/hook/deliveries?",
        all,
        Value::from,
    )
}

async fn repo_deliveries(
    State(world): State<Shared>,
    Path((owner, repo, _)): NumberPath,
) -> ApiResult {
    let name = name(&owner, &repo)?;
    let world = world.lock();
    world.repos.get(&name).ok_or_else(not_found)?;
    let newest = world.attempts.iter().rev();
    Ok(Json(newest.map(|attempt| json!(attempt)).collect::<Vec<_>>()).into_response())
}

async fn redeliver(State(world): State<Shared>, Path(id): Path<u64>) -> ApiResult {
    hook::redeliver(&world, id).await.ok_or_else(not_found)?;
    Ok((StatusCode::ACCEPTED, Json(json!({}))).into_response())
}

async fn redeliver_of_repo(
    State(world): State<Shared>,
    Path((_, _, _, id)): Path<(String, String, u64, u64)>,
) -> ApiResult {
    hook::redeliver(&world, id).await.ok_or_else(not_found)?;
    Ok((StatusCode::ACCEPTED, Json(json!({}))).into_response())
}

/// Returns one page of a list, with the link to the next one.
pub(super) fn paged(
    world: &World,
    page: &Page,
    headers: &HeaderMap,
    path: &str,
    all: Vec<Value>,
    body: impl FnOnce(Vec<Value>) -> Value,
) -> Response {
    let size = page.per_page.clamp(1, 100);
    let size = world.page_size.map_or(size, |most| size.min(most));
    let start = page.page.saturating_sub(1) * size;
    let more = all.len() > start + size;
    let items = all.into_iter().skip(start).take(size).collect();
    let mut response = Json(body(items)).into_response();
    if more {
        let host = headers.get(header::HOST).and_then(|h| h.to_str().ok());
        let link = format!(
            "<http://{}{path}per_page={}&page={}>; rel=\"next\"",
            host.unwrap_or_default(),
            page.per_page,
            page.page + 1
        );
        if let Ok(link) = HeaderValue::from_str(&link) {
            response.headers_mut().insert(header::LINK, link);
        }
    }
    response
}

fn name(owner: &str, repo: &str) -> Result<RepoName, ErrorResponse> {
    RepoName::parse(&format!("{owner}/{repo}")).map_err(|_| not_found())
}

/// Applies a function to a repository and an unused id.
pub(super) fn with_repo<T>(
    world: &Shared,
    owner: &str,
    repo: &str,
    f: impl FnOnce(&mut Repo, u64) -> T,
) -> Result<T, ErrorResponse> {
    let name = name(owner, repo)?;
    let mut world = world.lock();
    let id = world.id();
    let repo = world.repos.get_mut(&name).ok_or_else(not_found)?;
    Ok(f(repo, id))
}

pub(super) fn not_found() -> ErrorResponse {
    error_response(StatusCode::NOT_FOUND, "Not Found")
}

pub(super) fn unprocessable() -> ErrorResponse {
    error_response(StatusCode::UNPROCESSABLE_ENTITY, "No ref found for that")
}
