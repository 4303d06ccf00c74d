use innkeeper_model::preview::PrAction;
use innkeeper_store::NextDelivery;

use super::*;
use crate::fixture::{Harness, pull_request, sha, slug};

/// A preview whose commit 'a' of a fork waits for approval.
async fn harness() -> Harness {
    let harness = Harness::new().await;
    harness.open_pull(sha('a'));
    harness.change_repo(|repo| {
        let write = "write".to_owned();
        repo.permissions.insert("alice".to_owned(), write);
    });
    harness.claim().await;
    let waiting = vec![
        PreviewFact::Head {
            repo: None,
            branch: crate::fixture::branch(),
            sha: sha('a'),
        },
        PreviewFact::State(PreviewState::WaitingForApproval),
    ];
    harness.set(waiting).await;
    harness
}

/// Has the label be delivered, and acts on it.
async fn set_label(harness: &Harness, sha: CommitSha) -> DeliveryOutcome {
    harness.change_pull(|pull| pull.labels = vec!["preview".to_owned()]);
    let label = PrAction::Labeled("preview".to_owned());
    harness.deliver("label", label, sha).await;
    let next = harness.store.next_delivery(&pull_request()).await;
    let NextDelivery::Process(delivery) = next.expect("read") else {
        panic!("the label is pending");
    };
    let preview = harness.preview().await.expect("exists");
    let approvals = &harness.parts.deliveries.approvals;
    let outcome = approvals.approve_by_label(&delivery, &preview).await;
    outcome.expect("answered")
}

async fn announce(harness: &Harness) {
    let (slug, sha) = (slug(), sha('a'));
    let announced = harness.store.record_announcement(&slug, &sha, 0);
    announced.await.expect("recorded");
}

async fn approved(harness: &Harness) -> Option<CommitSha> {
    harness.record().await.approved_sha
}

#[tokio::test]
async fn label_approves_the_announced_commit() {
    let harness = harness().await;
    announce(&harness).await;
    assert_eq!(set_label(&harness, sha('a')).await, DeliveryOutcome::Done);
    assert_eq!(approved(&harness).await, Some(sha('a')));
}

#[tokio::test]
async fn label_does_not_approve_an_unannounced_commit() {
    let harness = harness().await;
    let outcome = set_label(&harness, sha('a')).await;
    assert!(
        matches!(outcome, DeliveryOutcome::Ignored(Some(_))),
        "{outcome:?}"
    );
    assert_eq!(approved(&harness).await, None);
    let fault = harness.record().await.fault.expect("recorded");
    assert_eq!(fault.code, Code::ApprovalNeeded);
}

#[tokio::test]
async fn label_of_a_user_without_write_access_approves_no_commit() {
    let harness = harness().await;
    announce(&harness).await;
    harness.change_repo(|repo| {
        let read = "read".to_owned();
        repo.permissions.insert("alice".to_owned(), read);
    });
    let outcome = set_label(&harness, sha('a')).await;
    assert!(
        matches!(outcome, DeliveryOutcome::Ignored(Some(_))),
        "{outcome:?}"
    );
    assert_eq!(approved(&harness).await, None);
}

#[tokio::test]
async fn label_that_is_gone_is_queried_again() {
    let harness = harness().await;
    announce(&harness).await;
    harness
        .deliver("label", PrAction::Labeled("preview".to_owned()), sha('a'))
        .await;
    let next = harness.store.next_delivery(&pull_request()).await;
    let NextDelivery::Process(mut delivery) = next.expect("read") else {
        panic!("the label is pending");
    };
    let preview = harness.preview().await.expect("exists");
    let approvals = &harness.parts.deliveries.approvals;
    let outcome = approvals.approve_by_label(&delivery, &preview).await;
    assert!(matches!(outcome, Ok(DeliveryOutcome::Retry { .. })));
    delivery.attempts = ATTEMPTS - 1;
    let outcome = approvals.approve_by_label(&delivery, &preview).await;
    assert!(matches!(outcome, Ok(DeliveryOutcome::Ignored(Some(_)))));
    assert_eq!(approved(&harness).await, None);
}

#[tokio::test]
async fn approval_ends_with_its_label() {
    let mut harness = harness().await;
    announce(&harness).await;
    set_label(&harness, sha('a')).await;
    harness.change_pull(|pull| pull.labels.clear());
    harness
        .store
        .finish_delivery("label", DeliveryOutcome::Done)
        .await
        .expect("recorded");
    harness
        .parts
        .resync
        .comparison
        .run()
        .await
        .expect("compared");
    assert_eq!(approved(&harness).await, None);
    assert!(harness.was_woken());
}
