//! Recorded deliveries of GitHub: each action is processed.

use std::fs;
use std::path::Path;

use innkeeper_model::preview::api::DeliveryState;

use crate::github::payload::RawDelivery;
use crate::host::PreviewHost;

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
    // In the order of a pull request's lifecycle: events after the close would be ignored on arrival.
    let order = |name: &str| match name {
        name if name.contains(".opened") => 0,
        "pull_request.closed" => 2,
        "pull_request.reopened" => 3,
        _ => 1,
    };
    all.sort_by_key(|(name, _)| (order(name), name.clone()));
    all
}

/// Returns a delivery's id with the characters of GitHub's ids.
fn id(round: &str, name: &str) -> String {
    format!("{round}-{name}").replace(['.', '_'], "-")
}

#[test]
fn every_recorded_action_is_processed() {
    let mut host = PreviewHost::new();
    // The token can read the recordings' repository, which has no configuration. Without access, deliveries wait for it.
    host.github.with(|world| {
        for _ in 0..1000 {
            world.answer_root(&["README.md"]);
        }
    });
    let daemon = host.start();
    host.start_webhook();
    let recorded = recorded();
    assert!(recorded.len() >= 16, "{}", recorded.len());
    let mut count = 0;
    // First sequentially, then concurrently.
    for round in ["sequential", "concurrent"] {
        for (name, text) in &recorded {
            let id = id(round, name);
            let status = host.send(&RawDelivery::signed(&id, "pull_request", text.clone()));
            if status == 200 {
                assert!(host.delivery(&id).is_none(), "{id}");
                continue;
            }
            assert_eq!(status, 202, "{id}");
            count += 1;
            if round == "sequential" {
                host.wait_for_delivery(&id);
            }
        }
    }
    assert!(count >= 16, "{count}");
    for round in ["sequential", "concurrent"] {
        for (name, _) in &recorded {
            let id = id(round, name);
            if host.delivery(&id).is_none() {
                continue;
            }
            host.wait_for_delivery(&id);
            let view = host.delivery(&id).expect("kept");
            let explanation = view.explanation.as_deref().unwrap_or_default();
            assert!(!explanation.is_empty(), "{view:?}");
            match view.state {
                DeliveryState::Done | DeliveryState::Ignored | DeliveryState::Superseded => {}
                DeliveryState::Failed => assert!(view.failure.is_some(), "{view:?}"),
                DeliveryState::Pending | DeliveryState::Running => panic!("{view:?}"),
            }
        }
    }
    daemon.stop();
}
