use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use axum::{Json, Router};
use innkeeper_model::api::{Accepted, GuestView};
use innkeeper_model::{Code, Failure, OperationId, Verb};
use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::fake::{Fake, Run, Stream, accept, events};
use crate::samples::{CLOSURE, accepted, finished, guest, name};

fn declared(name: &str, slot: u32) -> GuestView {
    let mut view = guest(name, slot);
    view.guest.declared = true;
    view
}

/// A host with an agent that is as declared, one that was created by hand, and one that is not declared any more.
fn fake() -> Fake {
    let guests = [declared("kept", 1), guest("manual", 2), declared("old", 3)];
    let stream = || Stream::Ends(vec![accepted(1, Verb::Set), finished(2)]);
    let list = get(async move || Json(guests));
    let created = Accepted {
        operation: OperationId(7),
        guest: Some(name("new")),
    };
    Fake::new(
        Router::new()
            .route(
                "/v1/guests",
                list.post(async move || (StatusCode::ACCEPTED, Json(created))),
            )
            .route("/v1/guests/kept/set", accept(7, Some("kept")))
            .route("/v1/guests/manual/set", accept(7, Some("manual")))
            .route("/v1/guests/old", accept(7, Some("old")))
            .route(
                "/v1/events",
                events([stream(), stream(), stream(), stream()]),
            ),
    )
}

fn declaration(remove: bool) -> Value {
    json!({
        "agents": {
            "kept": { "closure": CLOSURE, "memory": "4G" },
            "manual": { "closure": CLOSURE },
            "new": { "flake": "/srv/fleet#new", "cpus": "2" },
        },
        "removeUndeclared": remove,
    })
}

fn apply(fake: &Fake, declaration: &Value, options: &[&str]) -> Run {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("agents.json");
    fs::write(&file, declaration.to_string()).expect("written");
    let file = file.display().to_string();
    fake.innkeeper(&[&["apply", file.as_str()], options].concat())
}

fn changes(fake: &Fake) -> String {
    let mut requests = fake.requests();
    requests.retain(|line| line.starts_with("POST") || line.starts_with("DELETE"));
    requests.join("\n")
}

#[test]
fn differences_are_applied_and_agents_created_by_hand_are_not_changed() {
    let fake = fake();
    let run = apply(&fake, &declaration(false), &[]);
    assert_snapshot!(run.transcript(), @r"
    status: 4
    --- stdout
    [OK] Agent kept is as declared.
    [INFO] Agent new: create.
    [OK] Agent new: create succeeded.
    --- stderr
    [ERROR] agent 'manual' was created by hand, and is not changed
            Hint: `innkeeper apply --adopt` takes it over; or declare another name, or destroy it: `agent destroy manual`.
    ");
    assert_snapshot!(changes(&fake), @r#"POST /v1/guests {"name":"new","flake":"/srv/fleet#new","closure":null,"memory":null,"cpus":"2","tasks":null,"declared":true}"#);
}

#[test]
fn undeclared_agents_are_removed_and_others_adopted_on_request() {
    let fake = fake();
    let run = apply(&fake, &declaration(true), &["--adopt", "--json"]);
    assert_snapshot!(run.transcript(), @r#"
    status: 0
    --- stdout
    [{"name":"old","action":"destroy"},{"name":"kept","action":"keep"},{"name":"manual","action":"set"},{"name":"new","action":"create"}]
    --- stderr
    "#);
    assert_snapshot!(changes(&fake), @r#"
    DELETE /v1/guests/old
    POST /v1/guests/manual/set {"flake":null,"closure":"/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest","memory":null,"cpus":null,"tasks":null,"declared":true,"restart":false}
    POST /v1/guests {"name":"new","flake":"/srv/fleet#new","closure":null,"memory":null,"cpus":"2","tasks":null,"declared":true}
    "#);
}

#[test]
fn dry_run_changes_nothing() {
    let fake = fake();
    let run = apply(&fake, &declaration(true), &["--dry-run"]);
    assert_snapshot!(run.transcript(), @r"
    status: 4
    --- stdout
    [INFO] Would destroy agent old.
    [OK] Agent kept is as declared.
    [INFO] Would create agent new.
    --- stderr
    [ERROR] agent 'manual' was created by hand, and is not changed
            Hint: `innkeeper apply --adopt` takes it over; or declare another name, or destroy it: `agent destroy manual`.
    ");
    assert_eq!(changes(&fake), "");
}

#[test]
fn invalid_file_changes_nothing() {
    for agents in [
        json!({ "Web": {} }),
        json!({ "web": { "memroy": "4G" } }),
        json!({ "web": { "memory": "a lot" } }),
    ] {
        let fake = fake();
        let run = apply(&fake, &json!({ "agents": agents }), &[]);
        let transcript = run.transcript();
        assert!(transcript.starts_with("status: 1"), "{transcript}");
        assert!(transcript.contains("is invalid"), "{transcript}");
        assert_eq!(changes(&fake), "");
    }
}

#[test]
fn another_operation_of_the_agent_is_waited_for() {
    let guests = [declared("kept", 1)];
    let is_busy = Arc::new(AtomicBool::new(true));
    let set = post(async move || {
        let accepted = Accepted {
            operation: OperationId(7),
            guest: Some(name("kept")),
        };
        if is_busy.swap(false, Ordering::Relaxed) {
            let failure = Failure::new(Code::GuestBusy, "agent 'kept' is being started");
            return (StatusCode::CONFLICT, Json(failure)).into_response();
        }
        (StatusCode::ACCEPTED, Json(accepted)).into_response()
    });
    let fake = Fake::new(
        Router::new()
            .route("/v1/guests", get(async move || Json(guests)))
            .route("/v1/guests/kept/set", set)
            .route(
                "/v1/events",
                events([Stream::Ends(vec![accepted(1, Verb::Set), finished(2)])]),
            ),
    );
    let declaration = json!({ "agents": { "kept": { "closure": CLOSURE, "memory": "8G" } } });
    let run = apply(&fake, &declaration, &[]);
    let transcript = run.transcript();
    assert!(transcript.starts_with("status: 0\n"), "{transcript}");
    assert!(transcript.contains("set succeeded"), "{transcript}");
    assert_eq!(changes(&fake).lines().count(), 2);
}
