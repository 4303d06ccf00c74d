//! Comments with commands, and reactions to them.

use innkeeper_github::client::Reaction;
use innkeeper_github::event::{Delivery, parse};
use innkeeper_github::fake::FailureKind;
use innkeeper_model::preview::{CommandEvent, PreviewCommand};
use serde_json::{Value, json};

use crate::support::{Stage, repo};

/// The recorded comment on an issue, as one with a command on an open pull request.
fn payload() -> Value {
    let recorded = include_bytes!("../payloads/issue_comment.created.json");
    let mut payload: Value = serde_json::from_slice(recorded).expect("JSON");
    payload["issue"]["pull_request"] = json!({ "url": "https://api.github.com/x" });
    payload["comment"]["body"] = json!("/preview reset-db\r\nThe data is broken.");
    payload
}

fn command(payload: &Value) -> Option<CommandEvent> {
    match parse("issue_comment", "d", payload.to_string().as_bytes()).expect("valid") {
        Delivery::Command(event) => Some(event),
        other => {
            assert_eq!(other, Delivery::Ignored("issue_comment".to_owned()));
            None
        }
    }
}

#[test]
fn command_of_a_person_is_parsed() {
    let event = command(&payload()).expect("a command");
    assert_eq!(event.command, PreviewCommand::ResetDatabase);
    assert_eq!(event.pull_request.to_string(), "Codertocat/Hello-World#1");
    assert_eq!(event.sender, "Codertocat");
    assert_eq!(event.comment, 492_700_400);
    assert!(event.repo_id.is_some() && event.updated_at.is_some());
}

#[test]
fn other_comments_are_ignored() {
    let change = |pointer: &str, value: Value| {
        let mut payload = payload();
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        payload.pointer_mut(parent).expect(pointer)[key] = value;
        (pointer.to_owned(), payload)
    };
    for (changed, payload) in [
        change("/action", json!("edited")),
        change("/action", json!("deleted")),
        change("/issue/state", json!("closed")),
        change("/issue/pull_request", Value::Null),
        change("/comment/body", json!("/preview destroy")),
        change("/comment/body", json!("Run /preview stop")),
        change("/comment/body", Value::Null),
        change("/comment/user/type", json!("Bot")),
        change("/comment/user/login", json!("another")),
        change("/comment/performed_via_github_app", json!({ "id": 1 })),
        change("/sender/type", json!("Bot")),
        change("/sender/type", json!("Organization")),
        change("/sender/login", json!("dependabot[bot]")),
    ] {
        assert_eq!(command(&payload), None, "{changed}");
    }
    let recorded = include_bytes!("../payloads/issue_comment.created.json");
    let ignored = Delivery::Ignored("issue_comment".to_owned());
    for body in [&recorded[..], b"\xff", b"[]"] {
        assert_eq!(parse("issue_comment", "d", body).expect("ignored"), ignored);
    }
}

#[test]
fn command_with_invalid_fields_is_an_error() {
    for pointer in ["/issue/number", "/comment/id", "/repository/full_name"] {
        let mut payload = payload();
        *payload.pointer_mut(pointer).expect(pointer) = Value::Null;
        let parsed = parse("issue_comment", "d", payload.to_string().as_bytes());
        parsed.expect_err(pointer);
    }
}

#[tokio::test]
async fn reaction_exists_once() {
    let stage = Stage::new().await;
    stage.open_pull();
    let added = stage
        .fake
        .with(|world| world.add_comment(&repo(), 7, "octocat", "/preview stop"));
    let comment = added.expect("opened")["comment"]["id"]
        .as_u64()
        .expect("an id");
    let github = stage.github();
    // A response that is lost does not duplicate it.
    stage
        .fake
        .with(|world| world.fail("POST", "/reactions", 1, FailureKind::CutOff));
    for reaction in [Reaction::Accepted, Reaction::Accepted, Reaction::Refused] {
        let reacted = github.react(&repo(), comment, reaction).await;
        reacted.expect("reacted");
    }
    let reactions = stage.fake.with(|world| {
        let comments = &world.repos[&repo()].comments;
        let found = comments.iter().find(|one| one.id == comment);
        found.expect("there").reactions.clone()
    });
    let contents: Vec<_> = reactions.iter().map(|(_, content)| content).collect();
    assert_eq!(contents, ["+1", "confused"]);
    let unknown = github
        .react(&repo(), comment + 1_000, Reaction::Accepted)
        .await;
    unknown.expect_err("no such comment");
}
