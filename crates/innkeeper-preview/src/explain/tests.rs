use innkeeper_model::api::Verdict;
use innkeeper_model::preview::PrAction;
use innkeeper_model::preview::api::{LinkKind, PreviewExplanation};
use innkeeper_model::{Code, Failure};
use innkeeper_store::{DeliveryOutcome, PreviewFact};

use super::*;
use crate::fixture::{Harness, sha, slug};

async fn explain(harness: &Harness) -> PreviewExplanation {
    let explained = harness.previews.explain(&slug()).await;
    explained.expect("explained")
}

fn verdict(explained: &PreviewExplanation, kind: LinkKind) -> Verdict {
    let link = explained.chain.iter().find(|link| link.link == kind);
    link.expect("a link").verdict
}

async fn fail(harness: &Harness, code: Code, log: &[&str]) {
    let failure = Failure {
        log: log.iter().map(|line| (*line).to_owned()).collect(),
        ..Failure::new(code, "attribute 'pkg' missing").with_remedy("Correct the file.")
    };
    let facts = vec![
        PreviewFact::State(PreviewState::Failed),
        PreviewFact::Fault(Some(failure)),
    ];
    harness.set(facts).await;
}

#[tokio::test]
async fn evaluation_error_is_the_cause_and_missing_guest_is_not() {
    let harness = Harness::new().await;
    harness.claim().await;
    let log = ["evaluating", "error: attribute 'pkg' missing", "at 3:5"];
    fail(&harness, Code::PreviewConfigInvalid, &log).await;
    let explained = explain(&harness).await;
    let cause = explained.cause.as_ref().expect("a cause");
    assert_eq!(
        (cause.verdict, cause.code),
        (Verdict::Broken, Some(Code::PreviewConfigInvalid))
    );
    assert_eq!(cause.finding, "aaaaaaa failed: attribute 'pkg' missing");
    assert_eq!(cause.remedy.as_deref(), Some("Correct the file."));
    assert_eq!(cause.log, ["  2 | error: attribute 'pkg' missing"]);
    let broken = explained.chain.iter().filter(|link| {
        // The test has no web server.
        link.verdict == Verdict::Broken && link.link != LinkKind::Url
    });
    let broken: Vec<_> = broken.map(|link| link.link).collect();
    assert_eq!(broken, [LinkKind::Commit]);
}

#[tokio::test]
async fn explanation_is_good_again_after_success() {
    let harness = Harness::new().await;
    harness.open_pull(sha('a'));
    harness.deliver("d1", PrAction::Opened, sha('a')).await;
    let failure = Failure::new(Code::BuildFailed, "it failed");
    let failed = DeliveryOutcome::Failed(failure);
    let finished = harness.store.finish_delivery("d1", failed).await;
    finished.expect("recorded");
    let last = vec![PreviewFact::LastDelivery("d1".to_owned())];
    harness.set(last).await;
    fail(&harness, Code::BuildFailed, &[]).await;
    let explained = explain(&harness).await;
    assert_eq!(verdict(&explained, LinkKind::Delivery), Verdict::Broken);

    harness.set_live(sha('a')).await;
    let explained = explain(&harness).await;
    assert_eq!(verdict(&explained, LinkKind::Delivery), Verdict::Ok);
    assert_eq!(verdict(&explained, LinkKind::Commit), Verdict::Ok);
}

#[tokio::test]
async fn locked_conversation_is_named() {
    let harness = Harness::new().await;
    harness.open_pull(sha('a'));
    harness.change_repo(|repo| repo.locked.extend([7]));
    harness.claim().await;
    let reporter = &harness.parts.parts.reporter;
    reporter.report_again(&slug()).await.expect_err("locked");
    let explained = explain(&harness).await;
    let report = explained.chain.iter().find(|l| l.link == LinkKind::Report);
    let report = report.expect("a link");
    assert_eq!(report.verdict, Verdict::Warning);
    assert!(
        report.finding.contains("its conversation is locked"),
        "{report:?}"
    );
    let checks = harness.previews.checks().await;
    let named = checks
        .iter()
        .find(|check| check.subject == "report on preview web-7");
    assert_eq!(named.map(|check| &check.finding), Some(&report.finding));

    harness.change_repo(|repo| repo.locked.clear());
    reporter.report_again(&slug()).await.expect("accepted");
    let explained = explain(&harness).await;
    assert_eq!(verdict(&explained, LinkKind::Report), Verdict::Ok);
}

#[test]
fn state_that_waits_is_a_warning_with_the_next_step() {
    let mut record = crate::fixture::preview().record;
    record.state = PreviewState::WaitingForApproval;
    let cause = cause(&record, &[], "add the label `ok`");
    assert_eq!(cause.verdict, Verdict::Warning);
    assert!(cause.remedy.expect("a step").contains("add the label `ok`"));
}
