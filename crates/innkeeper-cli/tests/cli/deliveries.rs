use axum::Router;
use innkeeper_model::preview::api::{DeliveryDetails, DeliveryState, DeliveryView};
use innkeeper_model::preview::{PreviewRecord, PreviewState, PullRequestEvent};
use innkeeper_model::{Code, Failure};
use insta::assert_snapshot;
use serde_json::json;

use crate::fake::{Fake, fail, respond};
use crate::samples::{name, time};

const ID: &str = "72d3162e-cc78-11e3-81ab-4c9367dc0958";
const NEWER: &str = "8a1f0c52-cc78-11e3-9a3c-0242ac120002";

fn event(fork: bool) -> PullRequestEvent {
    let value = json!({
        "delivery": ID,
        "action": "synchronize",
        "pull_request": { "repo": "octo/web", "number": 7 },
        "head_repo": if fork { "mallory/web" } else { "octo/web" },
        "head_sha": "0123456789abcdef0123456789abcdef01234567",
        "head_branch": "topic",
        "base_branch": "main",
        "is_fork": fork,
        "author": "alice",
        "sender": "bob",
    });
    serde_json::from_value(value).expect("an event")
}

fn view(state: DeliveryState) -> DeliveryView {
    let event = event(false);
    DeliveryView {
        id: ID.to_owned(),
        received_at: time("10:00:00"),
        event: "pull_request".to_owned(),
        action: Some(event.action.to_string()),
        pull_request: Some(event.pull_request),
        head_sha: Some(event.head_sha),
        slug: Some(name("web-7")),
        state,
        attempts: 0,
        retry_at: None,
        finished_at: None,
        explanation: Some("it waits for its turn".to_owned()),
        yields_to: None,
        failure: None,
    }
}

fn preview() -> PreviewRecord {
    let value = json!({
        "slug": "web-7",
        "repo": "octo/web",
        "pull_request": 7,
        "branch": "topic",
        "head_repo": "octo/web",
        "wanted_sha": "0123456789abcdef0123456789abcdef01234567",
        "live_sha": "89abcdef0123456789abcdef0123456789abcdef",
        "state": PreviewState::Failed,
        "created_at": "2026-11-20T09:00:00Z",
        "last_activity": "2026-11-20T10:00:00Z",
    });
    serde_json::from_value(value).expect("a record")
}

fn list(deliveries: &[DeliveryView]) -> Fake {
    Fake::new(Router::new().route("/v1/deliveries", respond(&deliveries)))
}

fn show(details: &DeliveryDetails) -> String {
    let path = format!("/v1/deliveries/{ID}");
    let fake = Fake::new(Router::new().route(&path, respond(details)));
    fake.innkeeper(&["deliveries", "show", ID]).ok()
}

#[test]
fn list_prints_a_table() {
    let other = DeliveryView {
        id: NEWER.to_owned(),
        received_at: time("10:00:05"),
        action: Some("closed".to_owned()),
        slug: None,
        ..view(DeliveryState::Done)
    };
    let stdout = list(&[other, view(DeliveryState::Superseded)])
        .innkeeper(&["deliveries"])
        .ok();
    assert_snapshot!(stdout);
    assert_snapshot!(list(&[]).innkeeper(&["deliveries", "list"]).ok(), @"(no deliveries)");
}

#[test]
fn list_filters_by_pull_request() {
    let fake = list(&[]);
    fake.innkeeper(&["deliveries", "--pull-request", "Octo/web#7"])
        .ok();
    fake.innkeeper(&[
        "deliveries",
        "list",
        "--pull-request",
        "Octo/web#7",
        "-n",
        "3",
    ])
    .ok();
    assert_eq!(
        fake.requests(),
        [
            "GET /v1/deliveries?limit=50&pull_request=Octo/web%237",
            "GET /v1/deliveries?limit=3&pull_request=Octo/web%237",
        ]
    );
    let refused = fake.innkeeper(&["deliveries", "--pull-request", "web#7", "--json"]);
    assert_eq!(refused.status, 1);
    assert_snapshot!(refused.failure().message, @"'web' is not a valid repository: write it as owner/name");
}

#[test]
fn json_has_the_models_values() {
    let views = [view(DeliveryState::Pending)];
    let stdout = list(&views).innkeeper(&["deliveries", "--json"]).ok();
    let read: Vec<DeliveryView> = serde_json::from_str(&stdout).expect("one value");
    assert_eq!(read, views);
}

#[test]
fn show_explains_a_delivery() {
    let superseded = DeliveryDetails {
        delivery: DeliveryView {
            explanation: Some(format!(
                "the newer delivery '{NEWER}' (closed) for the same pull request took its place before it was done"
            )),
            yields_to: Some(NEWER.to_owned()),
            finished_at: Some(time("10:00:05")),
            ..view(DeliveryState::Superseded)
        },
        event: event(false).into(),
        preview: None,
    };
    assert_snapshot!("superseded", show(&superseded));

    let mut failure = Failure::new(
        Code::PreviewConfigInvalid,
        "web-7 cannot be evaluated:\n\u{1b}[31mno",
    )
    .with_remedy("Correct preview-config.nix and push again.");
    failure.log = vec!["error: undefined variable 'pkg'".to_owned()];
    let failed = DeliveryDetails {
        delivery: DeliveryView {
            explanation: Some("it failed, and the same would happen again".to_owned()),
            attempts: 1,
            finished_at: Some(time("10:00:05")),
            failure: Some(failure),
            ..view(DeliveryState::Failed)
        },
        event: event(true).into(),
        preview: Some(preview()),
    };
    assert_snapshot!("failed", show(&failed));

    let waiting = DeliveryDetails {
        delivery: DeliveryView {
            attempts: 2,
            retry_at: Some(time("10:00:20")),
            failure: Some(Failure::new(Code::GithubFailed, "GitHub does not respond")),
            ..view(DeliveryState::Pending)
        },
        event: event(false).into(),
        preview: None,
    };
    assert_snapshot!("waiting", show(&waiting));

    let command = serde_json::json!({
        "delivery": NEWER,
        "pull_request": { "repo": "octo/web", "number": 7 },
        "comment": 12,
        "command": "reset-db",
        "sender": "alice",
    });
    let command = DeliveryDetails {
        delivery: DeliveryView {
            event: "issue_comment".to_owned(),
            action: Some("/preview reset-db".to_owned()),
            head_sha: None,
            ..view(DeliveryState::Done)
        },
        event: serde_json::from_value(command).expect("a command"),
        preview: None,
    };
    assert_snapshot!("command", show(&command));
}

#[test]
fn replay_reports_a_newer_delivery() {
    let path = format!("/v1/deliveries/{ID}/replay");
    let replay = |view: &DeliveryView| {
        let fake = Fake::new(Router::new().route(&path, respond(view)));
        let stdout = fake.innkeeper(&["deliveries", "replay", ID]).ok();
        assert_eq!(fake.requests(), [format!("POST {path}")]);
        stdout
    };
    assert_snapshot!(
        replay(&view(DeliveryState::Pending)),
        @"[OK] Delivery 72d3162e-cc78-11e3-81ab-4c9367dc0958 will be processed again."
    );
    let superseded = DeliveryView {
        yields_to: Some(NEWER.to_owned()),
        ..view(DeliveryState::Pending)
    };
    assert_snapshot!("replay_superseded", replay(&superseded));
}

#[test]
fn unknown_delivery_is_an_error_with_a_hint() {
    let failure = Failure::new(Code::DeliveryNotFound, "there is no delivery 'x'")
        .with_remedy("`innkeeper deliveries` shows the deliveries that are kept.");
    let fake = Fake::new(Router::new().route("/v1/deliveries/x", fail(failure)));
    let run = fake.innkeeper(&["deliveries", "show", "x"]);
    assert_eq!(run.status, 3);
    assert!(run.stderr.contains("Hint: "), "{run:?}");
    let run = fake.innkeeper(&["deliveries", "show", "../guests"]);
    assert_eq!(run.status, 1, "{run:?}");
}
