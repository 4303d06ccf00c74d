//! The handlers of reactions to comments.

use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::Shared;
use super::api::{ApiResult, NumberPath, not_found, with_repo};
use super::middleware::{Caller, error_response};

/// GitHub's names of reactions.
const CONTENTS: [&str; 8] = [
    "+1", "-1", "laugh", "confused", "heart", "hooray", "rocket", "eyes",
];

pub(super) fn routes() -> Router<Shared> {
    Router::new().route(
        "/repos/{owner}/{repo}/issues/comments/{id}/reactions",
        post(react),
    )
}

/// Adds a reaction. An account has at most one of each kind: a repeated request is success, with another status.
async fn react(
    State(world): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path((owner, repo, id)): NumberPath,
    Json(body): Json<Value>,
) -> ApiResult {
    let content = body["content"].as_str().unwrap_or_default();
    if !CONTENTS.contains(&content) {
        let message = "Validation Failed";
        return Err(error_response(StatusCode::UNPROCESSABLE_ENTITY, message));
    }
    with_repo(&world, &owner, &repo, |repo, id_of_reaction| {
        let comment = repo.comments.iter_mut().find(|comment| comment.id == id);
        let comment = comment.ok_or_else(not_found)?;
        let reaction = (caller.login().to_owned(), content.to_owned());
        let is_new = !comment.reactions.contains(&reaction);
        let status = match is_new {
            true => StatusCode::CREATED,
            false => StatusCode::OK,
        };
        if is_new {
            comment.reactions.push(reaction);
        }
        let body = json!({ "id": id_of_reaction, "content": content });
        Ok((status, Json(body)).into_response())
    })?
}
