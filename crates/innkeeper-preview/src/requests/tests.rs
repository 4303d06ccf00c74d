use innkeeper_model::preview::api::DeliveryState;

use super::*;
use crate::fixture::{Harness, live_facts, pull_request, sha};

const LABEL: &str = "preview";

async fn harness(drafts: Drafts, by_label: bool) -> Harness {
    let harness = Harness::with(|config| {
        config.approval_label = "approved".to_owned();
        config.admission = Admission {
            drafts,
            request_label: by_label.then(|| LABEL.to_owned()),
        };
    })
    .await;
    harness.open_pull(sha('a'));
    harness
}

/// Records an event of the pull request in its present state. No preview is recorded with it.
async fn record(harness: &Harness, id: &str, action: PrAction) {
    let (draft, head) = harness.change_repo(|repo| {
        let pull = &repo.pulls[&7];
        (pull.draft, pull.head_sha.clone())
    });
    let mut new = crate::fixture::delivery(id, action, head);
    new.slugs = Vec::new();
    if let innkeeper_model::preview::DeliveryEvent::PullRequest(event) = &mut new.event {
        event.draft = draft;
    }
    harness.store.record_delivery(new).await.expect("recorded");
}

/// Has an event arrive and acts on it; returns the state of its delivery.
async fn act(harness: &Harness, id: &str, action: PrAction) -> DeliveryState {
    record(harness, id, action).await;
    let deliveries = harness.parts.deliveries.clone();
    match harness.preview().await {
        Some(preview) => {
            let delivery = harness.next().await;
            let accepted = deliveries.accept(&delivery, &preview).await;
            if let crate::deliveries::Accepted::Finished(outcome) = accepted.expect("answered") {
                let finished = harness.store.finish_delivery(id, outcome);
                finished.await.expect("recorded");
            }
        }
        None => {
            deliveries.dispatch().await.expect("dispatched");
            for _ in 0..2000 {
                let next = harness.store.next_delivery(&pull_request()).await;
                let is_acting = !deliveries.acting.lock().is_empty();
                if !is_acting && next.expect("read") == innkeeper_store::NextDelivery::None
                    || harness.preview().await.is_some()
                {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        }
    }
    let delivery = harness.store.delivery(id).await.expect("read");
    delivery.expect("kept").state
}

fn set_draft(harness: &Harness, draft: bool) {
    harness.change_pull(|pull| pull.draft = draft);
}

async fn is_present(harness: &Harness) -> bool {
    let preview = harness.preview().await;
    preview.is_some_and(|preview| preview.desired == Presence::Present)
}

#[tokio::test]
async fn draft_gets_its_preview_when_it_is_ready() {
    for drafts in [Drafts::Off, Drafts::UntilReady] {
        let harness = harness(drafts, false).await;
        set_draft(&harness, true);
        let opened = act(&harness, "opened", PrAction::Opened).await;
        assert_eq!(opened, DeliveryState::Ignored, "{drafts:?}");
        let pushed = act(&harness, "push", PrAction::Synchronize).await;
        assert_eq!(pushed, DeliveryState::Ignored, "{drafts:?}");
        assert!(!is_present(&harness).await, "{drafts:?}");

        set_draft(&harness, false);
        let ready = act(&harness, "ready", PrAction::ReadyForReview).await;
        assert_eq!(ready, DeliveryState::Done, "{drafts:?}");
        assert!(is_present(&harness).await, "{drafts:?}");

        set_draft(&harness, true);
        harness.set(live_facts(sha('a'))).await;
        act(&harness, "draft", PrAction::ConvertedToDraft).await;
        let stays = drafts == Drafts::UntilReady;
        assert_eq!(is_present(&harness).await, stays, "{drafts:?}");
    }
}

#[tokio::test]
async fn drafts_are_previewed_by_default() {
    let harness = harness(Drafts::On, false).await;
    set_draft(&harness, true);
    act(&harness, "opened", PrAction::Opened).await;
    assert!(is_present(&harness).await);
    let converted = act(&harness, "draft", PrAction::ConvertedToDraft).await;
    assert_eq!(converted, DeliveryState::Pending, "the push is first");
    assert!(is_present(&harness).await);
}

#[tokio::test]
async fn late_event_about_a_draft_has_no_effect() {
    let harness = harness(Drafts::Off, false).await;
    // Ready again before the event is acted on, and the other way around.
    harness.claim().await;
    act(&harness, "draft", PrAction::ConvertedToDraft).await;
    assert!(is_present(&harness).await);
    set_draft(&harness, true);
    act(&harness, "draft-2", PrAction::ConvertedToDraft).await;
    assert!(!is_present(&harness).await);
    act(&harness, "ready", PrAction::ReadyForReview).await;
    assert!(!is_present(&harness).await);
    set_draft(&harness, false);
    act(&harness, "ready-2", PrAction::ReadyForReview).await;
    assert!(is_present(&harness).await);
}

#[tokio::test]
async fn label_requests_a_preview_and_its_removal_withdraws_it() {
    let harness = harness(Drafts::On, true).await;
    let labeled = || PrAction::Labeled(LABEL.to_owned());
    let opened = act(&harness, "opened", PrAction::Opened).await;
    assert_eq!(opened, DeliveryState::Ignored);
    let delivery = harness.store.delivery("opened").await.expect("read");
    let failure = delivery.expect("kept").failure.expect("a reason");
    assert_eq!(failure.code, Code::PreviewNotRequested);
    let other = PrAction::Labeled("bug".to_owned());
    act(&harness, "other", other).await;
    assert!(!is_present(&harness).await);

    harness.change_pull(|pull| pull.labels = vec![LABEL.to_owned()]);
    let requested = act(&harness, "labeled", labeled()).await;
    assert_eq!(requested, DeliveryState::Done);
    assert!(is_present(&harness).await);
    let preview = harness.preview().await.expect("recorded");
    assert_eq!(preview.request, Some(PreviewRequest::Label));
    assert_eq!(preview.record.wanted_sha, sha('a'));

    // The removal of another label.
    act(&harness, "unlabeled", PrAction::Unlabeled).await;
    assert!(is_present(&harness).await);
    harness.change_pull(|pull| pull.labels.clear());
    act(&harness, "unlabeled-2", PrAction::Unlabeled).await;
    assert!(!is_present(&harness).await);
    // A push during the removal requests nothing; the label does.
    act(&harness, "push", PrAction::Synchronize).await;
    assert!(!is_present(&harness).await);
    harness.change_pull(|pull| pull.labels = vec![LABEL.to_owned()]);
    act(&harness, "labeled-2", labeled()).await;
    assert!(is_present(&harness).await);
}

#[tokio::test]
async fn push_with_the_label_requests_a_preview_too() {
    let harness = harness(Drafts::UntilReady, true).await;
    harness.change_pull(|pull| {
        pull.labels = vec![LABEL.to_owned()];
        pull.draft = true;
    });
    act(&harness, "push", PrAction::Synchronize).await;
    assert!(!is_present(&harness).await, "a draft");
    set_draft(&harness, false);
    let ready = act(&harness, "ready", PrAction::ReadyForReview).await;
    assert_eq!(ready, DeliveryState::Done);
    assert!(is_present(&harness).await);
}

#[tokio::test]
async fn resync_finds_lost_withdrawals() {
    for (drafts, by_label, request, draft, stays) in [
        (Drafts::Off, false, None, true, false),
        (
            Drafts::Off,
            false,
            Some(PreviewRequest::Command),
            true,
            true,
        ),
        (Drafts::UntilReady, false, None, true, true),
        (Drafts::On, true, Some(PreviewRequest::Label), false, false),
        (Drafts::On, true, Some(PreviewRequest::Command), false, true),
        (Drafts::On, true, None, false, true),
        (Drafts::Off, false, None, false, true),
    ] {
        let harness = harness(drafts, by_label).await;
        harness.claim().await;
        set_draft(&harness, draft);
        harness.set(vec![PreviewFact::Request(request)]).await;
        harness.set(live_facts(sha('a'))).await;
        let compared = harness.parts.resync.comparison.run().await;
        compared.expect("compared");
        assert_eq!(
            is_present(&harness).await,
            stays,
            "{drafts:?} {by_label} {request:?} {draft}"
        );
    }
}

#[tokio::test]
async fn check_of_a_pull_request_without_a_preview_ends() {
    for (drafts, by_label, text) in [
        (Drafts::UntilReady, false, "drafts have no preview"),
        (Drafts::On, true, "previews are created on request"),
    ] {
        let harness = Harness::with(|config| {
            config.style.checks = true;
            config.admission.drafts = drafts;
            config.admission.request_label = by_label.then(|| LABEL.to_owned());
        })
        .await;
        harness.open_pull(sha('a'));
        harness.change_pull(|pull| pull.draft = !by_label);
        let state = act(&harness, "opened", PrAction::Opened).await;
        assert_eq!(state, DeliveryState::Ignored, "{text}");
        let [[name, state, line]] = harness.wait_for_statuses(1).await.try_into().expect("one");
        assert_eq!((&*name, &*state), ("innkeeper/preview", "success"));
        assert!(line.starts_with(text), "{line}");
        assert_eq!(harness.comments(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn check_of_a_push_during_the_removal_ends() {
    let harness = Harness::with(|config| {
        config.style.checks = true;
        config.admission.drafts = Drafts::Off;
    })
    .await;
    harness.open_pull(sha('b'));
    harness.change_pull(|pull| pull.draft = true);
    harness.claim().await;
    harness
        .set(vec![PreviewFact::Desired(Presence::Absent)])
        .await;
    let state = act(&harness, "push", PrAction::Synchronize).await;
    assert_eq!(state, DeliveryState::Ignored);
    let [[_, state, line]] = harness.wait_for_statuses(1).await.try_into().expect("one");
    assert_eq!(state, "success", "{line}");
}
