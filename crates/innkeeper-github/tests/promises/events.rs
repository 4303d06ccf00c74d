//! Parsing of recorded payloads: see `tests/payloads/README.md`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use innkeeper_github::event::{Delivery, parse};
use innkeeper_github::form;
use innkeeper_model::preview::{
    HookSetting, PrAction, PullRequestEvent, RepoName, RepositoryAction, RepositoryEvent,
};
use serde_json::{Value, json};

const DELIVERY: &str = "72d3162e-cc78-11e3-81ab-4c9367dc0958";

/// All recorded payloads: the event's name, the rest of the file's name, and the bytes.
fn recorded() -> Vec<(String, String, Vec<u8>)> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/payloads");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).expect("the payloads") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if let Some(name) = name.strip_suffix(".json") {
            let (event, rest) = name.split_once('.').unwrap_or((name, ""));
            let bytes = std::fs::read(&path).expect("readable");
            all.push((event.to_owned(), rest.to_owned(), bytes));
        }
    }
    all
}

fn pull_request(body: &[u8]) -> PullRequestEvent {
    let event = match parse("pull_request", DELIVERY, body).expect("valid") {
        Delivery::PullRequest(event) => Some(*event),
        Delivery::Ping(_)
        | Delivery::Command(_)
        | Delivery::Repository(_)
        | Delivery::Ignored(_) => None,
    };
    event.expect("about a pull request")
}

fn opened() -> Value {
    let (_, _, bytes) = recorded()
        .into_iter()
        .find(|(event, rest, _)| event == "pull_request" && rest == "opened")
        .expect("recorded");
    serde_json::from_slice(&bytes).expect("JSON")
}

fn event(payload: &Value) -> PullRequestEvent {
    pull_request(payload.to_string().as_bytes())
}

#[test]
fn titles_are_bounded_and_other_types_are_ignored() {
    let mut payload = opened();
    payload["pull_request"]["title"] = json!(format!("a\u{1b}[31m\n{}", "b".repeat(1000)));
    let title = event(&payload).details.title.expect("a title");
    assert!(title.starts_with("a[31mb") && title.chars().count() == 256);
    for odd in [json!(null), json!(7), json!(["x"])] {
        payload["pull_request"]["title"] = odd.clone();
        payload["repository"]["private"] = odd;
        let details = event(&payload).details;
        assert_eq!((details.title, details.private), (None, None));
    }
}

#[test]
fn event_parses_every_recorded_action() {
    let mut actions = BTreeSet::new();
    for (event, rest, body) in recorded() {
        if event != "pull_request" {
            continue;
        }
        let event = pull_request(&body);
        let written: Value = serde_json::from_slice(&body).expect("JSON");
        let name = written["action"].as_str().expect("an action");
        assert_eq!(event.action.to_string(), name, "{rest}");
        let updated_at = written["pull_request"]["updated_at"].as_str();
        assert_eq!(
            event.updated_at,
            updated_at.and_then(|time| time.parse().ok()),
            "{rest}"
        );
        assert!(event.updated_at.is_some(), "{rest}");
        let details = &event.details;
        assert_eq!(
            details.title.as_deref(),
            written["pull_request"]["title"].as_str(),
            "{rest}"
        );
        assert_eq!(
            details.author.as_deref(),
            written["pull_request"]["user"]["login"].as_str(),
            "{rest}"
        );
        assert_eq!(
            details.private,
            written["repository"]["private"].as_bool(),
            "{rest}"
        );
        assert_eq!(event.delivery, DELIVERY);
        assert_eq!(event.pull_request.number, 2, "{rest}");
        let text = |pointer: &str| {
            written
                .pointer(pointer)
                .and_then(Value::as_str)
                .expect(pointer)
        };
        assert_eq!(
            event.pull_request.repo.as_str(),
            text("/repository/full_name")
        );
        assert_eq!(event.head_sha.as_str(), text("/pull_request/head/sha"));
        assert_eq!(event.head_branch.as_str(), text("/pull_request/head/ref"));
        assert_eq!(event.base_branch.as_str(), text("/pull_request/base/ref"));
        assert_eq!(event.author, text("/pull_request/user/login"));
        assert_eq!(event.sender, text("/sender/login"));
        assert!(!event.is_fork && !event.merged, "{rest}");
        assert_eq!(
            event.draft,
            written["pull_request"]["draft"] == true,
            "{rest}"
        );
        actions.insert(name.to_owned());
    }
    insta::assert_snapshot!(Vec::from_iter(actions).join(" "), @"assigned closed converted_to_draft labeled locked opened ready_for_review reopened review_request_removed review_requested synchronize unassigned unlabeled unlocked");
}

#[test]
fn event_action_is_parsed_by_name() {
    let action = |rest: &str| {
        let all = recorded();
        let found = all
            .iter()
            .find(|(e, r, _)| e == "pull_request" && r == rest);
        pull_request(&found.expect(rest).2).action
    };
    assert_eq!(action("opened"), PrAction::Opened);
    assert_eq!(action("opened.without-installation"), PrAction::Opened);
    assert_eq!(action("opened.ghes-3.1"), PrAction::Opened);
    assert_eq!(action("synchronize"), PrAction::Synchronize);
    assert_eq!(action("reopened"), PrAction::Reopened);
    assert_eq!(action("closed"), PrAction::Closed);
    assert_eq!(action("labeled"), PrAction::Labeled("bug".to_owned()));
    assert_eq!(action("unlabeled"), PrAction::Unlabeled);
    assert_eq!(action("ready_for_review"), PrAction::ReadyForReview);
    assert_eq!(action("converted_to_draft"), PrAction::ConvertedToDraft);
    assert_eq!(action("locked"), PrAction::Other("locked".to_owned()));
}

#[test]
fn event_parses_pings_and_ignores_other_events() {
    let (mut pings, mut settings) = (0, Vec::new());
    for (event, rest, body) in recorded() {
        let output = parse(&event, DELIVERY, &body).expect("valid");
        match event.as_str() {
            "pull_request" => continue,
            "ping" => {
                let Delivery::Ping(ping) = output else {
                    panic!("{output:?}");
                };
                settings.extend(
                    ping.problems
                        .iter()
                        .map(|problem| (rest.clone(), problem.setting)),
                );
                pings += 1;
            }
            _ => assert_eq!(output, Delivery::Ignored(event)),
        }
    }
    assert_eq!(pings, 4);
    settings.sort_by(|a, b| a.0.cmp(&b.0));
    let expected: [(String, HookSetting); 5] = [
        ("1".to_owned(), HookSetting::Url),
        ("2".to_owned(), HookSetting::Url),
        ("3".to_owned(), HookSetting::Url),
        ("4".to_owned(), HookSetting::Events),
        ("4".to_owned(), HookSetting::Url),
    ];
    assert_eq!(settings, expected);
    assert_eq!(
        parse("star", DELIVERY, b"\xff not JSON").expect("ignored"),
        Delivery::Ignored("star".to_owned())
    );
}

#[test]
fn recorded_payloads_parse_alike_as_forms() {
    for (event, rest, body) in recorded() {
        let encoded = percent_encoding::percent_encode(&body, percent_encoding::NON_ALPHANUMERIC);
        let encoded = format!("payload={encoded}");
        let content_type = Some("application/x-www-form-urlencoded");
        let decoded = form::payload(content_type, encoded.as_bytes()).expect("a payload");
        assert_eq!(*decoded, *body, "{event} {rest}");
    }
}

#[test]
fn event_detects_existing_and_deleted_forks() {
    let mut payload = opened();
    payload["pull_request"]["head"]["repo"]["full_name"] = json!("mallory/Hello-World");
    let fork = event(&payload);
    assert!(fork.is_fork);
    assert_eq!(
        fork.head_repo.expect("exists").as_str(),
        "mallory/Hello-World"
    );

    // The same name with another id.
    let base = payload["repository"].clone();
    payload["pull_request"]["head"]["repo"] =
        json!({ "full_name": base["full_name"], "id": base["id"].as_u64().expect("a number") + 1 });
    let same_name = event(&payload);
    assert!(same_name.is_fork && same_name.head_repo.is_none());
    assert_eq!(same_name.repo_id, base["id"].as_u64());

    payload["pull_request"]["head"]["repo"] = Value::Null;
    let gone = event(&payload);
    assert!(gone.is_fork && gone.head_repo.is_none());

    // The same repository in another case is not a fork.
    payload["pull_request"]["head"]["repo"] = json!({ "full_name": "codertocat/hello-world" });
    assert!(!event(&payload).is_fork);
    // A pull request within a repository that is itself a fork is not from a fork.
    payload["pull_request"]["head"]["repo"]["fork"] = json!(true);
    assert!(!event(&payload).is_fork);
}

/// The package has no recording of `repository`; these are GitHub's documented fields.
#[test]
fn event_identifies_a_changed_repository_by_id() {
    let payload = |action: &str| {
        json!({
            "action": action,
            "changes": { "repository": { "name": { "from": "web" } } },
            "repository": { "id": 1296269, "name": "new", "full_name": "octo/new", "private": true },
            "sender": { "login": "alice" },
        })
    };
    let read = |payload: Value| {
        parse("repository", DELIVERY, payload.to_string().as_bytes()).expect("valid")
    };
    for (name, action) in [
        ("renamed", RepositoryAction::Renamed),
        ("transferred", RepositoryAction::Transferred),
        ("deleted", RepositoryAction::Deleted),
    ] {
        let expected = RepositoryEvent {
            delivery: DELIVERY.to_owned(),
            action,
            id: 1_296_269,
            name: RepoName::parse("octo/new").expect("a name"),
        };
        assert_eq!(read(payload(name)), Delivery::Repository(expected));
    }
    let ignored = Delivery::Ignored("repository".to_owned());
    assert_eq!(read(payload("publicized")), ignored);
    let mut unnumbered = payload("deleted");
    unnumbered["repository"]["id"] = Value::Null;
    assert_eq!(read(unnumbered), ignored);
    parse("repository", DELIVERY, b"{}").expect_err("a repository is missing");
}

/// The package has no recording of `edited`; these are GitHub's documented fields.
#[test]
fn event_of_an_edit_names_its_changes() {
    let mut payload = opened();
    payload["action"] = json!("edited");
    payload["changes"] = json!({ "body": { "from": null } });
    let edited = event(&payload);
    assert_eq!(edited.action, PrAction::Edited);
    assert!(!edited.title_changed && !edited.base_changed);
    assert!(
        edited.body_changed,
        "a text that was empty before was changed, too"
    );
    payload["changes"] = json!({ "title": { "from": "x" }, "base": { "ref": { "from": "main" } } });
    let edited = event(&payload);
    assert!(edited.title_changed && edited.base_changed && !edited.body_changed);
}

#[test]
fn event_tolerates_missing_and_unknown_fields() {
    let sha = "a".repeat(40);
    let repository = json!({ "full_name": "octo/web" });
    let least = json!({
        "action": "opened",
        "pull_request": {
            "number": 7,
            "state": "open",
            "user": null,
            "head": { "ref": "x", "sha": sha, "repo": null },
            "base": { "ref": "main", "sha": sha },
            "news": [1, { "2": 3 }],
        },
        "repository": repository,
    });
    let least = event(&least);
    assert_eq!(
        (least.author.as_str(), least.sender.as_str()),
        ("ghost", "ghost")
    );
    let mut payload = opened();
    payload["pull_request"]["merged_at"] = json!("2026-01-01T00:00:00Z");
    payload["pull_request"]["merged"] = json!(true);
    payload["action"] = json!("closed");
    assert!(event(&payload).merged);
    payload["action"] = json!("labeled");
    assert_eq!(
        event(&payload).action,
        PrAction::Other("labeled".to_owned())
    );
}

#[test]
fn event_rejects_payload_without_required_fields() {
    for (pointer, value) in [
        ("/pull_request/head/sha", json!("main")),
        ("/pull_request/head/sha", Value::Null),
        ("/pull_request/head/ref", json!("../../etc")),
        ("/repository/full_name", json!("octo/../web")),
        ("/pull_request/number", json!(-1)),
        ("/pull_request/number", json!("7")),
        ("/action", Value::Null),
        ("/action", json!("")),
        ("/sender/login", json!("x".repeat(300))),
        ("/pull_request", json!([])),
    ] {
        let mut payload = opened();
        *payload.pointer_mut(pointer).expect(pointer) = value.clone();
        let output = parse("pull_request", DELIVERY, payload.to_string().as_bytes());
        assert!(output.is_err(), "{pointer} = {value}");
    }
    let whole = opened().to_string();
    assert!(parse("pull_request", "", whole.as_bytes()).is_err());
    assert!(parse("pull_request", DELIVERY, b"").is_err());
    let cut = &whole.as_bytes()[..whole.len() - 1];
    assert!(parse("pull_request", DELIVERY, cut).is_err());
    let form = parse("pull_request", DELIVERY, b"payload=%7B%7D").expect_err("refused");
    assert!(innkeeper_model::Explain::remedy(&form).is_some_and(|r| r.contains("content type")));
}
