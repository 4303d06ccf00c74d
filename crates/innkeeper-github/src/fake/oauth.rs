//! GitHub's pages and calls for logins of people, with PKCE.

use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Shared;
use super::api::{Page, paged};
use super::middleware::Caller;
use super::world::{AccountRecord, IssuedCode, Rights, World};

#[derive(Deserialize)]
struct Authorize {
    client_id: String,
    redirect_uri: String,
    scope: String,
    state: String,
    code_challenge: String,
    code_challenge_method: String,
}

#[derive(Deserialize)]
struct Exchange {
    client_id: String,
    client_secret: String,
    code: String,
    redirect_uri: String,
    code_verifier: String,
}

/// Routes without authorization.
pub(super) fn web_routes() -> Router<Shared> {
    Router::new()
        .route("/login/oauth/authorize", get(authorize))
        .route("/login/oauth/access_token", post(exchange))
}

/// Routes of the API.
pub(super) fn api_routes() -> Router<Shared> {
    Router::new()
        .route("/user/orgs", get(organizations))
        .route("/user/teams", get(teams))
}

/// Returns to the app with a code for the visitor, as GitHub does once its page was confirmed.
async fn authorize(State(world): State<Shared>, Query(query): Query<Authorize>) -> Response {
    let mut world = world.lock();
    let is_known = world
        .oauth
        .as_ref()
        .is_some_and(|app| app.client_id == query.client_id && app.callback == query.redirect_uri);
    let Some(login) = world.visitor.clone().filter(|_| is_known) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if query.code_challenge_method != "S256" {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let code = format!("code{}", world.id());
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let target = format!(
        "{}?code={code}&state={}",
        query.redirect_uri,
        encode(&query.state)
    );
    let issued = IssuedCode {
        login,
        redirect: query.redirect_uri,
        challenge: query.code_challenge,
        scope: query.scope,
    };
    world.codes.insert(code, issued);
    (StatusCode::FOUND, [(header::LOCATION, target)]).into_response()
}

/// Exchanges a code once. Errors have status 200, like GitHub's.
async fn exchange(State(world): State<Shared>, Json(request): Json<Exchange>) -> Json<Value> {
    let mut world = world.lock();
    let is_app = world.oauth.as_ref().is_some_and(|app| {
        app.client_id == request.client_id && app.client_secret == request.client_secret
    });
    if !is_app {
        return Json(json!({ "error": "incorrect_client_credentials" }));
    }
    let Some(issued) = world.codes.remove(&request.code) else {
        return Json(json!({ "error": "bad_verification_code" }));
    };
    let digest = Sha256::digest(&request.code_verifier);
    let is_same = issued.redirect == request.redirect_uri
        && super::middleware::decode_base64url(&issued.challenge).as_deref() == Some(&digest[..]);
    if !is_same {
        return Json(json!({ "error": "bad_verification_code" }));
    }
    let token = format!("gho_fake{}", world.id());
    let rights = Rights {
        login: issued.login,
        expires_at: None,
        repos: None,
        read_only: true,
        scopes: Some(issued.scope.replace(' ', ", ")),
        lacks: std::collections::BTreeSet::new(),
    };
    world.tokens.insert(token.clone(), rights);
    Json(json!({ "access_token": token, "token_type": "bearer", "scope": issued.scope }))
}

async fn organizations(
    State(world): State<Shared>,
    Extension(caller): Extension<Caller>,
    Query(page): Query<Page>,
    headers: HeaderMap,
) -> Response {
    let world = world.lock();
    let account = account(&world, &caller);
    let all = account
        .organizations
        .iter()
        .map(|login| json!({ "login": login }));
    paged(
        &world,
        &page,
        &headers,
        "/user/orgs?",
        all.collect(),
        Value::from,
    )
}

async fn teams(
    State(world): State<Shared>,
    Extension(caller): Extension<Caller>,
    Query(page): Query<Page>,
    headers: HeaderMap,
) -> Response {
    let world = world.lock();
    let team = |team: &String| {
        let (organization, slug) = team.split_once('/')?;
        Some(json!({ "slug": slug, "organization": { "login": organization } }))
    };
    let all = account(&world, &caller)
        .teams
        .iter()
        .filter_map(team)
        .collect();
    paged(&world, &page, &headers, "/user/teams?", all, Value::from)
}

fn account(world: &World, caller: &Caller) -> AccountRecord {
    world
        .accounts
        .get(caller.login())
        .cloned()
        .unwrap_or_default()
}
