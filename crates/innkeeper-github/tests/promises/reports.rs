use innkeeper_github::client::DeploymentState;
use innkeeper_github::fake::FailureKind;
use innkeeper_github::report::{Report, ReportSettings, ReportTarget};
use innkeeper_model::preview::text::{COMMENT_MARKER, CommentStyle, LINK_MARKER};
use innkeeper_model::preview::{
    BranchName, CommitSha, Outlook, PreviewRecord, PreviewState, PreviewView, RepoName, Rollout,
};
use innkeeper_model::{Code, Explain, Failure, GuestName};

use crate::support::{Stage, repo, unknown_sha};

fn settings(target: ReportTarget) -> ReportSettings {
    ReportSettings {
        target,
        deployments: true,
        checks: false,
        comment: CommentStyle {
            approve: "add the label `preview`".to_owned(),
            ttl: None,
        },
    }
}

pub(crate) fn view(sha: &CommitSha, state: PreviewState) -> PreviewView {
    PreviewView {
        preview: PreviewRecord {
            slug: GuestName::parse("web-7").expect("a name"),
            repo: repo(),
            pull_request: Some(7),
            branch: BranchName::parse("change").expect("a branch"),
            head_repo: Some(RepoName::parse("octo/web").expect("a repository")),
            wanted_sha: sha.clone(),
            live_sha: (state == PreviewState::Live).then(|| sha.clone()),
            approved_sha: None,
            state,
            fault: (state == PreviewState::Failed).then(|| {
                Failure::new(Code::BuildFailed, "attribute 'pkg' missing\n@everyone ```")
                    .with_remedy("Correct preview-config.nix and push.")
            }),
            last_delivery: None,
            created_at: "2026-11-20T10:00:00Z".parse().expect("a time"),
            last_activity: "2026-11-20T10:00:00Z".parse().expect("a time"),
            rollout: Rollout::default(),
            config_path: None,
            owner: None,
        },
        url: "https://web-7.preview.example.com".to_owned(),
        extra_urls: vec!["https://api-web-7.preview.example.com".to_owned()],
        database: None,
        repo_trouble: None,
        app_trouble: None,
        visibility: innkeeper_model::preview::Visibility::Public,
        outlook: Outlook::default(),
    }
}

async fn publish(stage: &Stage, view: &PreviewView, target: ReportTarget) {
    let report = Report::of(view, &settings(target)).expect("it has a pull request");
    stage.github().publish(&report).await.expect("told");
}

/// Renders the state on GitHub: the text, the comments, and the deployments with their newest status.
fn rendered(stage: &Stage) -> String {
    stage.fake.with(|world| {
        let found = &world.repos[&repo()];
        let mut text = format!("== text\n{}\n", found.pulls[&7].body);
        for comment in &found.comments {
            text.push_str(&format!(
                "== comment by {}\n{}",
                comment.author, comment.body
            ));
        }
        for deployment in &found.deployments {
            let last = deployment.statuses.last().expect("a status");
            text.push_str(&format!(
                "== {} {}: {} {}\n",
                deployment.environment, last["state"], last["description"], last["environment_url"]
            ));
        }
        text
    })
}

fn writes(stage: &Stage) -> usize {
    stage
        .fake
        .with(|world| world.requests.iter().filter(|r| r.method != "GET").count())
}

#[tokio::test]
async fn comment_follows_a_preview_through_its_life_cycle() {
    let stage = Stage::new().await;
    let (_, sha) = stage.open_pull();
    for state in [
        PreviewState::Queued,
        PreviewState::Building,
        PreviewState::Live,
    ] {
        publish(&stage, &view(&sha, state), ReportTarget::Comment).await;
        let before = writes(&stage);
        publish(&stage, &view(&sha, state), ReportTarget::Comment).await;
        assert_eq!(
            writes(&stage),
            before,
            "{state}: saying it again writes nothing"
        );
    }
    let live = rendered(&stage)
        .replace(sha.as_str(), "SHA")
        .replace(sha.short(), "SHORT");
    insta::assert_snapshot!(live, @r#"
    == text
    Adds a login.
    == comment by innkeeper-bot
    <!-- innkeeper-preview -->
    **Preview:** https://web-7.preview.example.com
    **URL:** https://api-web-7.preview.example.com

    **Live** with `SHORT`.

    | | |
    | --- | --- |
    | Lifetime | until the pull request is closed |

    <sub>`preview explain web-7` on the host shows details.</sub>
    == preview/web-7 "success": "SHORT is live" "https://web-7.preview.example.com"
    "#);

    let closing = view(&sha, PreviewState::Closing);
    publish(&stage, &closing, ReportTarget::Comment).await;
    let removed = Report::removed(&closing, &settings(ReportTarget::Comment)).expect("a report");
    stage.github().publish(&removed).await.expect("told");
    insta::assert_snapshot!(rendered(&stage), @r#"
    == text
    Adds a login.
    == comment by innkeeper-bot
    <!-- innkeeper-preview -->
    The preview of this pull request was removed.
    == preview/web-7 "inactive": "Replaced or removed" ""
    "#);
    let before = writes(&stage);
    stage.github().publish(&removed).await.expect("told");
    assert_eq!(writes(&stage), before);
}

#[tokio::test]
async fn links_leave_the_authors_text_alone() {
    let stage = Stage::new().await;
    let (pull_request, sha) = stage.open_pull();
    publish(&stage, &view(&sha, PreviewState::Live), ReportTarget::Text).await;
    insta::assert_snapshot!(rendered(&stage).replace(sha.short(), "SHORT"), @r#"
    == text
    Adds a login.

    <!-- preview-link -->
    ---
    **Preview:** https://web-7.preview.example.com
    **URL:** https://api-web-7.preview.example.com
    == preview/web-7 "success": "SHORT is live" "https://web-7.preview.example.com"
    "#);

    // The author appends text, and removes lines from the middle of the block.
    let github = stage.github();
    let body = github
        .pull_request(&pull_request)
        .await
        .expect("an answer")
        .expect("exists")
        .body;
    github
        .set_body(&pull_request, &format!("{body}\n\nFixes #3."))
        .await
        .expect("edited");
    publish(&stage, &view(&sha, PreviewState::Live), ReportTarget::Text).await;
    let after = github
        .pull_request(&pull_request)
        .await
        .expect("an answer")
        .expect("exists")
        .body;
    assert!(
        after.contains(LINK_MARKER) && after.ends_with("\n\nFixes #3."),
        "{after}"
    );
    github
        .set_body(&pull_request, "Another text.")
        .await
        .expect("edited");
    publish(&stage, &view(&sha, PreviewState::Live), ReportTarget::Text).await;
    let restored = github
        .pull_request(&pull_request)
        .await
        .expect("an answer")
        .expect("exists");
    assert!(
        restored
            .body
            .starts_with("Another text.\n\n<!-- preview-link -->\n---\n**Preview:** ")
    );

    let removed = Report::removed(
        &view(&sha, PreviewState::Closing),
        &settings(ReportTarget::Text),
    );
    github
        .publish(&removed.expect("a report"))
        .await
        .expect("told");
    let gone = github
        .pull_request(&pull_request)
        .await
        .expect("an answer")
        .expect("exists");
    assert_eq!(gone.body, "Another text.");
}

#[tokio::test]
async fn links_have_a_comment_only_while_needed() {
    let stage = Stage::new().await;
    let (_, sha) = stage.open_pull();
    publish(
        &stage,
        &view(&sha, PreviewState::Failed),
        ReportTarget::Text,
    )
    .await;
    let failed = rendered(&stage).replace(sha.short(), "SHORT");
    insta::assert_snapshot!(failed, @r#"
    == text
    Adds a login.

    <!-- preview-link -->
    ---
    **Preview:** https://web-7.preview.example.com
    **URL:** https://api-web-7.preview.example.com
    == comment by innkeeper-bot
    <!-- innkeeper-preview -->
    **Preview:** https://web-7.preview.example.com
    **URL:** https://api-web-7.preview.example.com

    **Failed** with `SHORT`.
    [Progress and log](https://web-7.preview.example.com)

    **Cause** (`build_failed`)

    ````text
    attribute 'pkg' missing
    @everyone ```
    ````

    **What to do**

    ```text
    Correct preview-config.nix and push.
    ```

    <sub>`preview explain web-7` on the host shows details.</sub>
    == preview/web-7 "failure": "SHORT failed: build_failed" "https://web-7.preview.example.com"
    "#);
    publish(&stage, &view(&sha, PreviewState::Live), ReportTarget::Text).await;
    let comments = stage.fake.with(|world| world.repos[&repo()].comments.len());
    assert_eq!(comments, 0);
}

#[tokio::test]
async fn deployment_of_the_live_commit_stays_active() {
    let stage = Stage::new().await;
    let (_, old) = stage.open_pull();
    publish(
        &stage,
        &view(&old, PreviewState::Live),
        ReportTarget::Nowhere,
    )
    .await;
    let new = stage.commit("change", &[("x", "2")]);
    for state in [PreviewState::Building, PreviewState::Failed] {
        let mut failed = view(&new, state);
        failed.preview.live_sha = Some(old.clone());
        publish(&stage, &failed, ReportTarget::Nowhere).await;
        assert_eq!(states(&stage)[0], DeploymentState::Success, "{state}");
    }
    assert_eq!(
        states(&stage),
        [DeploymentState::Success, DeploymentState::Failure]
    );
    publish(
        &stage,
        &view(&new, PreviewState::Live),
        ReportTarget::Nowhere,
    )
    .await;
    assert_eq!(
        states(&stage),
        [DeploymentState::Inactive, DeploymentState::Success]
    );
    assert!(
        stage
            .fake
            .with(|world| world.repos[&repo()].comments.is_empty())
    );
}

fn states(stage: &Stage) -> Vec<DeploymentState> {
    stage.fake.with(|world| {
        let last = world.repos[&repo()]
            .deployments
            .iter()
            .map(|d| d.statuses.last());
        last.map(|s| serde_json::from_value(s.expect("a status")["state"].clone()).expect("known"))
            .collect()
    })
}

#[tokio::test]
async fn deployment_waits_for_approval() {
    let stage = Stage::new().await;
    let (_, sha) = stage.open_pull();
    publish(
        &stage,
        &view(&sha, PreviewState::WaitingForApproval),
        ReportTarget::Comment,
    )
    .await;
    assert_eq!(states(&stage), []);
    let output = rendered(&stage);
    assert!(output.contains("add the label `preview`"), "{output}");
}

#[tokio::test]
async fn comment_duplicated_by_a_crash_is_deleted() {
    let stage = Stage::new().await;
    let (pull_request, sha) = stage.open_pull();
    let github = stage.github();
    let body = format!("{COMMENT_MARKER}\nold");
    let first = github
        .create_comment(&pull_request, &body)
        .await
        .expect("written");
    github
        .create_comment(&pull_request, &body)
        .await
        .expect("written");
    publish(
        &stage,
        &view(&sha, PreviewState::Live),
        ReportTarget::Comment,
    )
    .await;
    let left = stage.fake.with(|world| {
        world.repos[&repo()]
            .comments
            .iter()
            .map(|c| (c.id, c.body.clone()))
            .collect::<Vec<_>>()
    });
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].0, first.id);
    assert!(left[0].1.contains("**Live**"));
}

#[tokio::test]
async fn publish_continues_after_a_failed_call() {
    let stage = Stage::new().await;
    let (_, sha) = stage.open_pull();
    stage
        .fake
        .with(|world| world.fail("GET", "/comments", 99, FailureKind::Status(502)));
    let report = Report::of(
        &view(&sha, PreviewState::Live),
        &settings(ReportTarget::Comment),
    );
    let report = report.expect("a report");
    let error = stage
        .github()
        .publish(&report)
        .await
        .expect_err("one failed");
    assert_eq!((error.0.len(), error.code()), (1, Code::GithubFailed));
    assert_eq!(states(&stage), [DeploymentState::Success]);
    // The part that could not be observed may exist: it was not written.
    assert_eq!(stage.count("POST", "/repos/octo/web/issues/7/comments"), 0);
    stage.fake.with(|world| world.failures.clear());
    stage.github().publish(&report).await.expect("told");
    assert!(rendered(&stage).contains("**Live**"));
}

#[tokio::test]
async fn deployment_of_an_unknown_commit_is_skipped() {
    let stage = Stage::new().await;
    stage.open_pull();
    publish(
        &stage,
        &view(&unknown_sha(), PreviewState::Live),
        ReportTarget::Comment,
    )
    .await;
    assert_eq!(states(&stage), []);
}

#[test]
fn report_requires_a_pull_request() {
    let mut view = view(&unknown_sha(), PreviewState::Live);
    view.preview.pull_request = None;
    assert_eq!(Report::of(&view, &settings(ReportTarget::Comment)), None);
    assert_eq!(
        Report::removed(&view, &settings(ReportTarget::Comment)),
        None
    );
}

/// The URL leads to the page with the log, and to the app once that is live.
#[tokio::test]
async fn deployment_statuses_lead_to_the_environment_and_the_log() {
    let stage = Stage::new().await;
    let (_, sha) = stage.open_pull();
    for state in [
        PreviewState::Queued,
        PreviewState::Building,
        PreviewState::Live,
        PreviewState::Failed,
    ] {
        publish(&stage, &view(&sha, state), ReportTarget::Comment).await;
    }
    let settings = settings(ReportTarget::Comment);
    let removed = Report::removed(&view(&sha, PreviewState::Closing), &settings);
    let removed = removed.expect("a report");
    stage.github().publish(&removed).await.expect("told");
    let statuses = stage.fake.with(|world| {
        let deployments = &world.repos[&repo()].deployments;
        assert_eq!(deployments.len(), 1);
        deployments[0].statuses.clone()
    });
    let states: Vec<_> = statuses.iter().map(|status| &status["state"]).collect();
    assert_eq!(
        states,
        ["queued", "in_progress", "success", "failure", "inactive"]
    );
    for status in &statuses {
        let url = match status["state"] == "inactive" {
            true => "",
            false => "https://web-7.preview.example.com",
        };
        assert_eq!(status["environment_url"], url, "{status}");
        assert_eq!(status["log_url"], url, "{status}");
        assert_eq!(status["auto_inactive"], true, "{status}");
    }
}
