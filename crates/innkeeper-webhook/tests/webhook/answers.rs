//! The answers are those of the contract.

use innkeeper_model::preview::api::DeliveryState;
use innkeeper_store::DeliveryFilter;
use serde_json::json;

use crate::support::client::{Answered, Client};
use crate::support::payload::{Sent, payload, sign};
use crate::support::program::Program;
use crate::support::{directory, intake};

fn answered(status: u16, body: serde_json::Value) -> Answered {
    Answered { status, body }
}

#[tokio::test]
async fn answers_are_those_of_the_contract() {
    let directory = directory();
    let (store, _serving) = intake::start(directory.path());
    let program = Program::start_with(directory.path(), "");
    let mut client = Client::new(program.address);

    let opened = Sent::pull_request("d-1", "opened", 7, 1);
    let accepted = answered(202, json!({"status": "accepted", "slug": "web-7"}));
    for _ in 0..2 {
        assert_eq!(client.deliver(&opened).await.expect("answers"), accepted);
    }
    let kept = store
        .deliveries(DeliveryFilter::default())
        .await
        .expect("reads");
    assert_eq!(kept.len(), 1, "delivered twice and recorded once");
    assert_eq!(kept[0].state, DeliveryState::Pending);
    assert_eq!(kept[0].event.head_sha.as_str(), format!("{:040x}", 1));

    let unsigned = answered(401, json!({"error": "Invalid signature"}));
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

    let event = |event: &str, body: &str| Sent::signed("d-2", event, body.to_owned());
    for (sent, expected) in [
        (
            event("ping", "{}"),
            answered(200, json!({"status": "pong"})),
        ),
        (
            event("issues", "no JSON"),
            answered(200, json!({"status": "ignored", "event": "issues"})),
        ),
        (
            // Whatever its name is, allowed or not.
            event(
                "repository",
                r#"{"action":"deleted","repository":{"id":1,"full_name":"octo/gone"}}"#,
            ),
            answered(202, json!({"status": "accepted"})),
        ),
        (
            event(
                "repository",
                r#"{"action":"edited","repository":{"id":1,"full_name":"octo/web"}}"#,
            ),
            answered(200, json!({"status": "ignored", "event": "repository"})),
        ),
        (
            event("pull_request", "{}"),
            answered(400, json!({"error": "Invalid pull_request payload"})),
        ),
        (
            Sent::pull_request("d-2", "assigned", 7, 1),
            answered(200, json!({"status": "ignored", "event": "pull_request"})),
        ),
        (
            event("../etc", "{}"),
            answered(400, json!({"error": "Invalid event"})),
        ),
        (
            Sent::pull_request(&"d".repeat(65), "opened", 7, 1),
            answered(400, json!({"error": "Invalid delivery id"})),
        ),
        (
            Sent::pull_request("a b", "opened", 7, 1),
            answered(400, json!({"error": "Invalid delivery id"})),
        ),
    ] {
        let said = client.deliver(&sent).await.expect("answers");
        assert_eq!(said, expected, "{} {}", sent.event, sent.id);
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

    let kept = store
        .deliveries(DeliveryFilter::default())
        .await
        .expect("reads");
    assert_eq!(kept.len(), 1, "what was refused or ignored is not recorded");
}

#[tokio::test]
async fn only_allowed_repositories_pass_compared_without_case() {
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
    let opened = Sent::pull_request("d-1", "opened", 7, 1);
    assert_eq!(client.deliver(&opened).await.expect("answers").status, 202);

    let mut other = payload("opened", 8, 1);
    other["repository"]["full_name"] = json!("mallory/web");
    let other = Sent::signed("d-2", "pull_request", other.to_string());
    assert_eq!(
        client.deliver(&other).await.expect("answers"),
        answered(200, json!({"status": "ignored", "reason": "not_allowed"}))
    );
    let kept = store
        .deliveries(DeliveryFilter::default())
        .await
        .expect("reads");
    assert_eq!(kept.len(), 1);
}

#[tokio::test]
async fn a_name_that_others_have_is_a_collision() {
    let directory = directory();
    let (store, _serving) = intake::start(directory.path());
    let program = Program::start(directory.path());
    let mut client = Client::new(program.address);
    let first = Sent::pull_request("d-1", "opened", 7, 1);
    assert_eq!(client.deliver(&first).await.expect("answers").status, 202);
    let mut other = payload("opened", 7, 1);
    other["repository"]["full_name"] = json!("octo/other");
    let other = Sent::signed("d-2", "pull_request", other.to_string());
    assert_eq!(
        client.deliver(&other).await.expect("answers"),
        answered(500, json!({"error": "slug_collision"}))
    );
    assert_eq!(store.delivery("d-2").await.expect("reads"), None);
}
