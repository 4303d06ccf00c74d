//! Drafts, and previews that a label or a comment requests.

use innkeeper_model::Code;
use innkeeper_model::preview::PreviewState;
use innkeeper_model::preview::api::DeliveryState;

use crate::github::payload::RawDelivery;
use crate::host::{PreviewHost, app};

/// Sends an event about a pull request, waits until it was processed, and returns the state of its delivery.
fn process(host: &PreviewHost, action: &str, label: Option<&str>) -> DeliveryState {
    let payload = host
        .github
        .with(|world| world.payload(&host.repo, 7, action, "alice"));
    let mut payload = payload.expect("there");
    if let Some(label) = label {
        payload["label"] = serde_json::json!({ "name": label });
    }
    let id = format!("{action}-{}", payload.to_string().len());
    let sent = RawDelivery::signed(&id, "pull_request", payload.to_string());
    assert_eq!(host.send(&sent), 202, "{action}");
    host.wait_for_delivery(&id);
    let view = host.delivery(&id).expect("kept");
    if view.state == DeliveryState::Ignored {
        let code = view.failure.as_ref().map(|failure| failure.code);
        assert_eq!(code, Some(Code::PreviewNotRequested), "{view:?}");
    }
    view.state
}

#[test]
fn draft_is_previewed_once_it_is_ready() {
    let mut host = PreviewHost::with_previews("drafts = 'until-ready'");
    let daemon = host.start();
    host.start_webhook();
    let sha = host.commit("topic", &[("preview-config.nix", &app())]);
    host.pull(7, "topic", &sha);
    host.change(7, |pull| pull.draft = true);
    for action in ["opened", "synchronize"] {
        assert_eq!(process(&host, action, None), DeliveryState::Ignored);
    }
    assert!(host.preview(7).is_none());
    assert_eq!(host.comments(7), Vec::<String>::new());

    host.change(7, |pull| pull.draft = false);
    assert_eq!(
        process(&host, "ready_for_review", None),
        DeliveryState::Done
    );
    host.wait_for_state(7, &sha, PreviewState::Live);
    host.change(7, |pull| pull.draft = true);
    host.deliver(7, "converted_to_draft");
    let next = host.push(7, "topic", &[("x", "y")]);
    host.wait_for_state(7, &next, PreviewState::Live);
    daemon.stop();
}

#[test]
fn label_or_comment_requests_a_preview() {
    let mut host = PreviewHost::with_previews("on = 'request'\nrequest_label = 'show'");
    let daemon = host.start();
    host.start_webhook();
    let sha = host.commit("topic", &[("preview-config.nix", &app())]);
    host.pull(7, "topic", &sha);
    assert_eq!(process(&host, "opened", None), DeliveryState::Ignored);
    let refused = host.command(7, "stranger", "/preview start");
    assert_eq!(refused.state, DeliveryState::Ignored, "{refused:?}");
    assert!(host.preview(7).is_none());

    host.change(7, |pull| pull.labels = vec!["show".to_owned()]);
    let requested = process(&host, "labeled", Some("show"));
    assert_eq!(requested, DeliveryState::Done);
    host.wait_for_state(7, &sha, PreviewState::Live);
    host.change(7, |pull| pull.labels.clear());
    host.deliver(7, "unlabeled");
    host.wait_until_gone(7);

    let started = host.command(7, "maintainer", "/preview start");
    assert_eq!(started.state, DeliveryState::Done, "{started:?}");
    assert_eq!(
        started.slug.map(|slug| slug.to_string()),
        Some("web-7".to_owned())
    );
    host.wait_for_state(7, &sha, PreviewState::Live);
    assert_eq!(host.reactions(7, "maintainer"), ["+1"]);
    daemon.stop();
}
