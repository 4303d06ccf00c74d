//! Responses match the contract.

use innkeeper_model::preview::api::DeliveryState;
use innkeeper_store::DeliveryFilter;
use serde_json::{Value, json};

use crate::support::client::{Client, Response};
use crate::support::payload::{RawDelivery, payload, sign};
use crate::support::program::Program;
use crate::support::{directory, intake};

fn response(status: u16, body: Value) -> Response {
    Response { status, body }
}

#[tokio::test]
async fn responses_match_the_contract() {
    let directory = directory();
    let (store, _serving) = intake::start(directory.path());
    let program = Program::start_with(directory.path(), "");
    let mut client = Client::new(program.address);

    let opened = RawDelivery::pull_request("d-1", "opened", 7, 1);
    let accepted = response(202, json!({"status": "accepted", "slug": "web-7"}));
    for _ in 0..2 {
        assert_eq!(client.deliver(&opened).await.expect("answers"), accepted);
    }
    let recorded = store
        .deliveries(DeliveryFilter::default())
        .await
        .expect("reads");
    assert_eq!(recorded.len(), 1, "delivered twice");
    assert_eq!(recorded[0].state, DeliveryState::Pending);
    let event = recorded[0].event.as_pull_request().expect("opened");
    assert_eq!(event.head_sha.as_str(), format!("{:040x}", 1));

    let unsigned = response(401, json!({"error": "Invalid signature"}));
    for signature in [
        None,
        Some("sha256=00".to_owned()),
        Some(sign("another", &opened.body)),
    ] {
        let mut bad = opened.clone();
        bad.signature = signature;
        assert_eq!(client.deliver(&bad).await.expect("answers"), unsigned);
    }
    let mut changed = opened.clone();
    changed.body = [&opened.body[..], b" "].concat().into();
    assert_eq!(client.deliver(&changed).await.expect("answers"), unsigned);

    let event = |event: &str, body: &str| RawDelivery::signed("d-2", event, body.to_owned());
    for (sent, expected) in [
        (
            event("ping", "{}"),
            response(200, json!({"status": "pong"})),
        ),
        (
            event("issues", "no JSON"),
            response(200, json!({"status": "ignored", "event": "issues"})),
        ),
        (
            // Accepted independently of the list of allowed repositories.
            event(
                "repository",
                r#"{"action":"deleted","repository":{"id":1,"full_name":"octo/gone"}}"#,
            ),
            response(202, json!({"status": "accepted"})),
        ),
        (
            event(
                "repository",
                r#"{"action":"edited","repository":{"id":1,"full_name":"octo/web"}}"#,
            ),
            response(200, json!({"status": "ignored", "event": "repository"})),
        ),
        (
            event("issue_comment", "no JSON"),
            response(200, json!({"status": "ignored", "event": "issue_comment"})),
        ),
        (
            event("issue_comment", &comment("created", "Nice.").to_string()),
            response(200, json!({"status": "ignored", "event": "issue_comment"})),
        ),
        (
            event(
                "issue_comment",
                &comment("edited", "/preview stop").to_string(),
            ),
            response(200, json!({"status": "ignored", "event": "issue_comment"})),
        ),
        (
            event(
                "issue_comment",
                &comment("created", "/preview stop").to_string(),
            ),
            response(202, json!({"status": "accepted", "slug": "web-7"})),
        ),
        (
            event("pull_request", "{}"),
            response(400, json!({"error": "Invalid pull_request payload"})),
        ),
        (
            RawDelivery::pull_request("d-2", "assigned", 7, 1),
            response(200, json!({"status": "ignored", "event": "pull_request"})),
        ),
        (
            event("../etc", "{}"),
            response(400, json!({"error": "Invalid event"})),
        ),
        (
            RawDelivery::pull_request(&"d".repeat(65), "opened", 7, 1),
            response(400, json!({"error": "Invalid delivery id"})),
        ),
        (
            RawDelivery::pull_request("a b", "opened", 7, 1),
            response(400, json!({"error": "Invalid delivery id"})),
        ),
    ] {
        let received = client.deliver(&sent).await.expect("answers");
        assert_eq!(received, expected, "{} {}", sent.event, sent.id);
    }
    let health = client.get("/health").await.expect("answers");
    assert_eq!(health.body["status"], "ok");
    assert!(
        health.body["uptime"]
            .as_f64()
            .is_some_and(|seconds| seconds >= 0.0)
    );
    assert_eq!(
        client.get("/internal/token").await.expect("answers").status,
        404
    );
    assert_eq!(
        client.get("/webhook/github").await.expect("answers").status,
        405
    );

    let recorded = store
        .deliveries(DeliveryFilter::default())
        .await
        .expect("reads");
    assert_eq!(
        recorded.len(),
        2,
        "rejected and ignored ones are not recorded"
    );
}

#[tokio::test]
async fn allowed_repositories_are_compared_without_case() {
    let directory = directory();
    let (store, _serving) = intake::start(directory.path());
    let mut command = crate::support::program::without_rights(directory.path());
    let config = crate::support::program::configure(directory.path(), "");
    command.args(["--config".as_ref(), config.as_os_str()]).env(
        "INNKEEPER_WEBHOOK_ALLOWED_REPOS",
        "['OCTO/Web', 'octo/api']",
    );
    let program = Program::run(directory.path(), command);
    let mut client = Client::new(program.address);
    let opened = RawDelivery::pull_request("d-1", "opened", 7, 1);
    assert_eq!(client.deliver(&opened).await.expect("answers").status, 202);

    let mut other = payload("opened", 8, 1);
    other["repository"]["full_name"] = json!("mallory/web");
    let other = RawDelivery::signed("d-2", "pull_request", other.to_string());
    assert_eq!(
        client.deliver(&other).await.expect("answers"),
        response(200, json!({"status": "ignored", "reason": "not_allowed"}))
    );
    let recorded = store
        .deliveries(DeliveryFilter::default())
        .await
        .expect("reads");
    assert_eq!(recorded.len(), 1);
}

#[tokio::test]
async fn a_taken_slug_is_a_collision() {
    let directory = directory();
    let (store, _serving) = intake::start(directory.path());
    let program = Program::start(directory.path());
    let mut client = Client::new(program.address);
    let first = RawDelivery::pull_request("d-1", "opened", 7, 1);
    assert_eq!(client.deliver(&first).await.expect("answers").status, 202);
    let mut other = payload("opened", 7, 1);
    other["repository"]["full_name"] = json!("octo/other");
    let other = RawDelivery::signed("d-2", "pull_request", other.to_string());
    assert_eq!(
        client.deliver(&other).await.expect("answers"),
        response(500, json!({"error": "slug_collision"}))
    );
    assert_eq!(store.delivery("d-2").await.expect("reads"), None);
}

/// Returns the payload of an `issue_comment` event of a person's comment on pull request 7.
fn comment(action: &str, body: &str) -> Value {
    json!({
        "action": action,
        "issue": { "number": 7, "state": "open", "pull_request": {} },
        "comment": {
            "id": 12,
            "user": { "login": "alice", "type": "User" },
            "body": body,
            "created_at": "2026-11-20T10:00:00Z",
            "performed_via_github_app": null,
        },
        "repository": { "id": 1, "full_name": "octo/web" },
        "sender": { "login": "alice", "type": "User" },
    })
}
