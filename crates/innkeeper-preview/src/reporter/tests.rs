use innkeeper_github::fake::FailureKind;
use innkeeper_model::preview::CommitSha;
use innkeeper_store::PreviewFact;

use super::*;
use crate::fixture::{Harness, pull_request, sha, slug};

/// Path of the comments on the pull request.
const COMMENTS: &str = "/repos/octo/web/issues/7/comments";

async fn harness() -> Harness {
    let harness = Harness::new().await;
    harness.open_pull(sha('a'));
    harness.claim().await;
    harness
}

fn reporter(harness: &Harness) -> &Reporter {
    &harness.parts.parts.reporter
}

async fn report(harness: &Harness) {
    let reported = reporter(harness).report(&slug(), false).await;
    reported.expect("accepted");
}

/// The only comment on the pull request.
fn comment(harness: &Harness) -> String {
    let comments = harness.comments();
    assert_eq!(comments.len(), 1, "{comments:?}");
    comments.concat()
}

fn requests(harness: &Harness) -> usize {
    harness.github.with(|world| world.requests.len())
}

fn state(state: PreviewState) -> Vec<PreviewFact> {
    vec![PreviewFact::State(state)]
}

async fn announced(harness: &Harness) -> Option<CommitSha> {
    harness.preview().await.expect("exists").announced_sha
}

#[tokio::test]
async fn report_is_sent_once_unless_forced() {
    let harness = harness().await;
    report(&harness).await;
    comment(&harness);
    let before = requests(&harness);
    report(&harness).await;
    assert_eq!(requests(&harness), before);
    // It was deleted on GitHub meanwhile.
    harness.change_repo(|repo| repo.comments.clear());
    reporter(&harness)
        .report_again(&slug())
        .await
        .expect("accepted");
    comment(&harness);
}

#[tokio::test]
async fn newest_state_is_reported_last() {
    let harness = harness().await;
    harness.set(state(PreviewState::Building)).await;
    // The first report is in flight when the state changes.
    harness
        .github
        .with(|world| world.fail("GET", COMMENTS, 1, FailureKind::Slow(300)));
    let first = reporter(&harness).clone();
    let first = tokio::spawn(async move { first.report(&slug(), false).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    harness.set_live(sha('a')).await;
    report(&harness).await;
    first.await.expect("ends").expect("accepted");
    let comment = comment(&harness);
    assert!(!comment.to_lowercase().contains("building"), "{comment}");
}

#[tokio::test]
async fn report_that_failed_is_sent_again() {
    let harness = harness().await;
    harness
        .github
        .with(|world| world.fail("", COMMENTS, 1, FailureKind::Status(502)));
    let failed = reporter(&harness).report(&slug(), false).await;
    assert!(failed.expect_err("refused").is_transient());
    assert!(harness.comments().is_empty());
    report(&harness).await;
    comment(&harness);
}

#[tokio::test]
async fn commit_is_announced_only_after_its_report() {
    let harness = harness().await;
    harness.set(state(PreviewState::WaitingForApproval)).await;
    harness
        .github
        .with(|world| world.fail("", COMMENTS, 1, FailureKind::Status(502)));
    let failed = reporter(&harness).report(&slug(), false).await;
    failed.expect_err("refused");
    assert_eq!(announced(&harness).await, None);
    report(&harness).await;
    assert_eq!(announced(&harness).await, Some(sha('a')));
}

#[tokio::test]
async fn other_states_announce_no_commit() {
    let harness = harness().await;
    report(&harness).await;
    assert_eq!(announced(&harness).await, None);
}

#[tokio::test]
async fn removed_preview_gets_no_further_report() {
    let harness = harness().await;
    harness.set_live(sha('a')).await;
    report(&harness).await;
    let live = comment(&harness);
    let preview = harness.preview().await.expect("exists");
    let removed = reporter(&harness).report_removal(&preview).await;
    removed.expect("accepted");
    harness
        .store
        .delete_preview(&slug())
        .await
        .expect("deleted");
    let last = harness.comments();
    assert_ne!(last, [live]);
    report(&harness).await;
    assert_eq!(harness.comments(), last);
}

/// Previews with checks, and a pull request whose preview was recorded.
async fn with_checks() -> Harness {
    let harness = Harness::with(|config| config.style.checks = true).await;
    harness.open_pull(sha('a'));
    harness.claim().await;
    harness
}

/// The commit statuses, each with the first digit of its commit.
fn statuses(harness: &Harness) -> Vec<(char, String)> {
    harness.change_repo(|repo| {
        let all = repo.statuses.iter();
        let first = |sha: &CommitSha| sha.as_str().chars().next().expect("a digit");
        all.map(|one| {
            let state = one.status["state"].as_str().expect("a state");
            (first(&one.sha), state.to_owned())
        })
        .collect()
    })
}

fn expected(all: &[(char, &str)]) -> Vec<(char, String)> {
    all.iter()
        .map(|(sha, state)| (*sha, (*state).to_owned()))
        .collect()
}

const API: &str = "innkeeper/preview: apps/api/preview.nix";

async fn open_checks(harness: &Harness) -> usize {
    harness.store.open_checks().await.expect("read").len()
}

fn head(digit: char) -> PreviewFact {
    PreviewFact::Head {
        repo: Some(crate::fixture::repo()),
        branch: crate::fixture::branch(),
        sha: sha(digit),
    }
}

#[tokio::test]
async fn check_of_a_replaced_commit_ends() {
    let harness = with_checks().await;
    harness.set(state(PreviewState::Building)).await;
    report(&harness).await;
    assert_eq!(open_checks(&harness).await, 1);
    harness.set(vec![head('b')]).await;
    report(&harness).await;
    harness.set_live(sha('b')).await;
    report(&harness).await;
    assert_eq!(
        statuses(&harness),
        expected(&[
            ('a', "pending"),
            ('b', "pending"),
            ('a', "success"),
            ('b', "success")
        ])
    );
    assert_eq!(open_checks(&harness).await, 0);
}

#[tokio::test]
async fn check_of_a_removed_preview_ends() {
    let harness = with_checks().await;
    harness.set(state(PreviewState::Building)).await;
    report(&harness).await;
    let preview = harness.preview().await.expect("exists");
    let removed = reporter(&harness).report_removal(&preview).await;
    removed.expect("accepted");
    assert_eq!(
        statuses(&harness),
        expected(&[('a', "pending"), ('a', "success")])
    );
    assert_eq!(open_checks(&harness).await, 0);
}

#[tokio::test]
async fn check_that_github_refused_ends_later() {
    let harness = with_checks().await;
    harness.set(state(PreviewState::Building)).await;
    report(&harness).await;
    harness.set(vec![head('b')]).await;
    // GitHub is down while the check of the replaced commit ends.
    let path = format!("/statuses/{}", sha('a'));
    harness
        .github
        .with(|world| world.fail("POST", &path, 1, FailureKind::Status(502)));
    report(&harness).await;
    assert_eq!(open_checks(&harness).await, 2);
    harness.set_live(sha('b')).await;
    report(&harness).await;
    let ended = reporter(&harness).conclude_orphans().await;
    ended.expect("ended");
    assert_eq!(
        statuses(&harness).last(),
        Some(&('a', "success".to_owned()))
    );
    assert_eq!(open_checks(&harness).await, 0);
}

#[tokio::test]
async fn each_preview_of_a_pull_request_has_its_check() {
    let harness = with_checks().await;
    let api = harness
        .claim_additional("apps/api/preview.nix", "web-7-api")
        .await;
    let web = slug();
    let report = async |slug: &GuestName| {
        let reported = reporter(&harness).report(slug, false).await;
        reported.expect("accepted");
    };
    report(&web).await;
    report(&api).await;
    assert_eq!(open_checks(&harness).await, 2);
    // The first one is live while the other one goes on.
    harness.set_live(sha('a')).await;
    report(&web).await;
    let concluded = reporter(&harness).conclude_orphans().await;
    concluded.expect("ended");
    let removed = harness.store.preview(&api).await.expect("read");
    let removed = removed.expect("exists");
    let removed = reporter(&harness).report_removal(&removed).await;
    removed.expect("accepted");
    let statuses = harness.statuses();
    let statuses = statuses.iter().map(|[name, state, _]| (&**name, &**state));
    assert_eq!(
        statuses.collect::<Vec<_>>(),
        [
            ("innkeeper/preview", "pending"),
            (API, "pending"),
            ("innkeeper/preview", "success"),
            (API, "success"),
        ]
    );
    assert_eq!(open_checks(&harness).await, 0);
}

#[tokio::test]
async fn commit_without_a_preview_has_the_checks_of_all_configurations() {
    for situation in [
        Situation::Draft,
        Situation::NotRequested,
        Situation::NoConfig,
        Situation::WaitingForApproval,
    ] {
        let harness = Harness::with(|config| {
            config.style.checks = true;
            let paths = ["apps/web/preview.nix", "apps/api/preview.nix"];
            let paths = paths.map(|path| SourcePath::parse(path).expect("a path"));
            config.config_paths.default = paths.to_vec();
        })
        .await;
        reporter(&harness).conclude_all_soon(&pull_request(), &sha('a'), situation);
        let mut statuses = harness.wait_for_statuses(2).await;
        statuses.sort();
        let ended = statuses.iter().map(|[name, state, _]| (&**name, &**state));
        let ended: Vec<_> = ended.collect();
        let expected = [("innkeeper/preview", "success"), (API, "success")];
        assert_eq!(ended, expected, "{situation:?}");
    }
}

/// The daemon was killed after it had removed the preview, and before the check had ended.
#[tokio::test]
async fn check_without_a_preview_ends() {
    let harness = with_checks().await;
    harness.set(state(PreviewState::Building)).await;
    report(&harness).await;
    let deleted = harness.store.delete_preview(&slug()).await;
    deleted.expect("deleted");
    let ended = reporter(&harness).conclude_orphans().await;
    ended.expect("ended");
    assert_eq!(
        statuses(&harness),
        expected(&[('a', "pending"), ('a', "success")])
    );
}

#[tokio::test]
async fn reports_of_work_in_progress_are_coalesced() {
    let harness = harness().await;
    let edits = |harness: &Harness| {
        harness.github.with(|world| {
            let writes = world.requests.iter().filter(|r| r.method != "GET");
            writes.count()
        })
    };
    report(&harness).await;
    let first = edits(&harness);
    for next in [
        PreviewState::Evaluating,
        PreviewState::Building,
        PreviewState::Starting,
        PreviewState::SettingUp,
    ] {
        harness.set(state(next)).await;
        reporter(&harness).report_soon(&slug());
    }
    harness.set_live(sha('a')).await;
    reporter(&harness).report_soon(&slug());
    while !comment(&harness).contains("**Live**") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(edits(&harness), first + 1);
}

#[tokio::test]
async fn report_shows_the_build_in_progress() {
    let harness = harness().await;
    harness.set(state(PreviewState::Building)).await;
    let build = BuildProgress {
        activity: "building menu-1.0".to_owned(),
        built: 1,
        to_build: 2,
        ..BuildProgress::default()
    };
    reporter(&harness).set_build(&slug(), Some(build));
    report(&harness).await;
    let shown = comment(&harness);
    assert!(
        shown.contains("1 of 2 built, now `building menu-1.0`."),
        "{shown}"
    );
    reporter(&harness).set_build(&slug(), None);
    report(&harness).await;
    assert!(!comment(&harness).contains("of 2 built"));
}
