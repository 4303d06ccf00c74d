//! Refusals by the HTTP server itself, as failures in JSON: parameters that cannot be read, bodies that are too long, methods that
//! a call does not have.

use axum::Json;
use axum::body::to_bytes;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use innkeeper_model::{Code, Failure};

/// The maximum length of the server's own texts, in bytes.
const MAX_TEXT: usize = 16 * 1024;

/// Returns a response whose body is a failure if it is an error without one. Status and other headers stay.
pub(super) async fn as_failure(response: Response) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error || is_json(response.headers()) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let text = to_bytes(body, MAX_TEXT).await.unwrap_or_default();
    let failure = failure(status, &String::from_utf8_lossy(&text));
    let (json, body) = Json(failure).into_response().into_parts();
    for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH] {
        head.headers.remove(name);
    }
    head.headers.extend(json.headers);
    Response::from_parts(head, body)
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"))
}

fn failure(status: StatusCode, text: &str) -> Failure {
    match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            Failure::new(Code::InvalidRequest, "this call does not have the method")
                .with_remedy("Use a method of the response's header Allow.")
        }
        StatusCode::PAYLOAD_TOO_LARGE => {
            Failure::new(Code::InvalidRequest, "the request's body is too long")
        }
        status if status.is_client_error() => Failure::new(
            Code::InvalidRequest,
            format!("the request cannot be read: {text}"),
        ),
        status => Failure::new(Code::Internal, format!("the call failed with {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn errors_without_a_failure_get_one_and_keep_their_headers() {
        let refusal = (
            StatusCode::METHOD_NOT_ALLOWED,
            [(header::ALLOW, "GET"), (header::CONTENT_TYPE, "text/plain")],
            "no",
        );
        let response = as_failure(refusal.into_response()).await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[header::ALLOW], "GET");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        let body = to_bytes(response.into_body(), MAX_TEXT)
            .await
            .expect("a body");
        let failure: Failure = serde_json::from_slice(&body).expect("a failure");
        assert_eq!(failure.code, Code::InvalidRequest);
        let success = as_failure("text".into_response()).await;
        let body = to_bytes(success.into_body(), MAX_TEXT)
            .await
            .expect("a body");
        assert_eq!(&body[..], b"text");
    }
}
