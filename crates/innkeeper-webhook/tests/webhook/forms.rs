//! The content types of deliveries, and the settings in pings.

use innkeeper_model::preview::PullRequestEvent;
use innkeeper_store::DeliveryFilter;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde_json::{Value, json};

use crate::support::client::{Client, Response};
use crate::support::payload::{RawDelivery, SECRET, payload, sign};
use crate::support::program::Program;
use crate::support::{directory, intake};

/// Encodes a payload as GitHub does.
pub(crate) fn encode(payload: &[u8]) -> String {
    format!("payload={}", percent_encode(payload, NON_ALPHANUMERIC))
}

fn response(status: u16, body: Value) -> Response {
    Response { status, body }
}

#[tokio::test]
async fn forms_are_accepted_like_json() {
    let directory = directory();
    let (store, _serving) = intake::start(directory.path());
    let program = Program::start(directory.path());
    let mut client = Client::new(program.address);
    let opened = payload("opened", 7, 1).to_string();

    let form = RawDelivery::form("d-1", "pull_request", encode(opened.as_bytes()));
    let accepted = response(202, json!({"status": "accepted", "slug": "web-7"}));
    assert_eq!(client.deliver(&form).await.expect("answers"), accepted);
    let as_json = RawDelivery::signed("d-2", "pull_request", opened.clone());
    assert_eq!(client.deliver(&as_json).await.expect("answers"), accepted);
    let mut recorded = store
        .deliveries(DeliveryFilter::default())
        .await
        .expect("reads");
    recorded.sort_by_key(|delivery| delivery.seq);
    let mut events = recorded
        .iter()
        .filter_map(|one| one.event.as_pull_request().cloned());
    let (form_event, json_event) = (events.next().expect("one"), events.next().expect("two"));
    assert_eq!(events.next(), None);
    let same_id = PullRequestEvent {
        delivery: json_event.delivery.clone(),
        ..form_event
    };
    assert_eq!(same_id, json_event);

    // The signature covers the form, not the payload in it.
    let mut forged = form.clone();
    forged.signature = Some(sign(SECRET, opened.as_bytes()));
    let refused = response(401, json!({"error": "Invalid signature"}));
    assert_eq!(client.deliver(&forged).await.expect("answers"), refused);
}

#[tokio::test]
async fn invalid_forms_are_rejected() {
    let directory = directory();
    let (store, _serving) = intake::start(directory.path());
    let program = Program::start(directory.path());
    let mut client = Client::new(program.address);
    let opened = payload("opened", 7, 1).to_string();
    let good = encode(opened.as_bytes());
    let invalid = response(400, json!({"error": "Invalid pull_request payload"}));
    for body in [
        String::new(),
        "payload=".to_owned(),
        format!("x={good}"),
        format!("{good}&{good}"),
        good[..good.len() - 9].to_owned(),
    ] {
        let form = RawDelivery::form("d-1", "pull_request", body.clone());
        let received = client.deliver(&form).await.expect("answers");
        assert_eq!(received, invalid, "{body}");
        let form = RawDelivery::form("d-1", "push", body);
        let received = client.deliver(&form).await.expect("answers");
        assert_eq!(
            received,
            response(200, json!({"status": "ignored", "event": "push"}))
        );
    }
    // A form that is sent as JSON.
    let wrong = RawDelivery::signed("d-1", "pull_request", good);
    assert_eq!(client.deliver(&wrong).await.expect("answers"), invalid);
    let recorded = store.deliveries(DeliveryFilter::default()).await;
    assert_eq!(recorded.expect("reads"), []);
}

#[tokio::test]
async fn pings_report_wrong_settings() {
    let directory = directory();
    let program = Program::start(directory.path());
    let mut client = Client::new(program.address);
    let ping = |events: Value, url: &str| {
        let hook = json!({
            "type": "Repository", "active": true, "events": events,
            "config": { "content_type": "form", "url": url, "insecure_ssl": "0" },
        });
        let body = json!({ "zen": "Design for failure.", "hook_id": 1, "hook": hook }).to_string();
        RawDelivery::form("d-1", "ping", encode(body.as_bytes()))
    };
    let url = "https://webhook.example.org/webhook/github";
    let right = ping(json!(["pull_request", "repository"]), url);
    assert_eq!(
        client.deliver(&right).await.expect("answers"),
        response(200, json!({"status": "pong"}))
    );
    let wrong = ping(json!(["push"]), "https://webhook.example.org/");
    let answer = client.deliver(&wrong).await.expect("answers");
    assert_eq!(
        (answer.status, &answer.body["status"]),
        (200, &json!("pong"))
    );
    let problems = answer.body["problems"].as_array().expect("a list");
    let settings: Vec<_> = problems.iter().map(|one| &one["setting"]).collect();
    assert_eq!(settings, ["events", "events", "url"]);
    for problem in problems {
        let text = |field| problem[field].as_str().is_some_and(|text| !text.is_empty());
        assert!(text("problem") && text("remedy"), "{problem}");
    }
}

#[tokio::test]
async fn a_slash_at_the_end_of_the_path_is_accepted() {
    let directory = directory();
    let (_store, _serving) = intake::start(directory.path());
    let program = Program::start(directory.path());
    let mut client = Client::new(program.address);
    let opened = RawDelivery::pull_request("d-1", "opened", 7, 1);
    let mut status = async |path, sent: &RawDelivery| {
        let answer = client.deliver_to(path, sent).await;
        answer.expect("answers").status
    };
    assert_eq!(status("/webhook/github/", &opened).await, 202);
    let mut unsigned = opened.clone();
    unsigned.signature = None;
    assert_eq!(status("/webhook/github/", &unsigned).await, 401);
    assert_eq!(status("/webhook/github//", &opened).await, 404);
    assert_eq!(status("/webhook/", &opened).await, 404);
}

/// As curl sends it without a `Content-Type` of its own.
#[tokio::test]
async fn json_that_is_declared_a_form_is_accepted() {
    let directory = directory();
    let (_store, _serving) = intake::start(directory.path());
    let program = Program::start(directory.path());
    let mut client = Client::new(program.address);
    let declared = RawDelivery::form("d-1", "pull_request", payload("opened", 7, 1).to_string());
    let received = client.deliver(&declared).await.expect("answers");
    let accepted = response(202, json!({"status": "accepted", "slug": "web-7"}));
    assert_eq!(received, accepted);
}
