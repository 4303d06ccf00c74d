//! What GitHub really sends: every recorded action goes all the way, and comes to an end.

use std::fs;
use std::path::Path;

use innkeeper_model::preview::api::DeliveryState;

use crate::github::payload::Sent;
use crate::town::Town;

/// The recordings of `pull_request` events, and an `edited` made from one of them, with their names.
fn recorded() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../innkeeper-github/tests/payloads");
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).expect("there") {
        let path = entry.expect("entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy();
        if name.starts_with("pull_request.") {
            let text = fs::read_to_string(&path).expect("read");
            if name == "pull_request.opened" {
                let mut edited: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                edited["action"] = "edited".into();
                edited["changes"] = serde_json::json!({ "title": { "from": "Another" } });
                all.push(("pull_request.edited".to_owned(), edited.to_string()));
            }
            all.push((name.into_owned(), text));
        }
    }
    // As in a pull request's life: what came after its end would be ignored on arrival.
    let place = |name: &str| match name {
        name if name.contains(".opened") => 0,
        "pull_request.closed" => 2,
        "pull_request.reopened" => 3,
        _ => 1,
    };
    all.sort_by_key(|(name, _)| (place(name), name.clone()));
    all
}

/// A delivery's id, of the characters that GitHub's have.
fn id(round: &str, name: &str) -> String {
    format!("{round}-{name}").replace(['.', '_'], "-")
}

#[test]
fn every_recorded_action_is_taken_and_comes_to_an_end() {
    let mut town = Town::new();
    let daemon = town.start();
    town.start_webhook();
    let recorded = recorded();
    assert!(recorded.len() >= 16, "{}", recorded.len());
    let mut count = 0;
    // One after the other, and then all at once.
    for round in ["alone", "crowd"] {
        for (name, text) in &recorded {
            let id = id(round, name);
            let status = town.send(&Sent::signed(&id, "pull_request", text.clone()));
            if status == 200 {
                assert!(town.delivery(&id).is_none(), "{id}");
                continue;
            }
            assert_eq!(status, 202, "{id}");
            count += 1;
            if round == "alone" {
                town.finished(&id);
            }
        }
    }
    assert!(count >= 16, "{count}");
    for round in ["alone", "crowd"] {
        for (name, _) in &recorded {
            let id = id(round, name);
            if town.delivery(&id).is_none() {
                continue;
            }
            town.finished(&id);
            let view = town.delivery(&id).expect("kept");
            let said = view.explanation.as_deref().unwrap_or_default();
            assert!(!said.is_empty(), "{view:?}");
            match view.state {
                DeliveryState::Done | DeliveryState::Ignored | DeliveryState::Superseded => {}
                DeliveryState::Failed => assert!(view.failure.is_some(), "{view:?}"),
                DeliveryState::Pending | DeliveryState::Running => panic!("{view:?}"),
            }
        }
    }
    daemon.stop();
}
