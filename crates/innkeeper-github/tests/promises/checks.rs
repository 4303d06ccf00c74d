use std::sync::Arc;

use innkeeper_github::client::{Credentials, Github, GithubError};
use innkeeper_github::report::{CHECK_NAME, Report, ReportSettings, ReportTarget};
use innkeeper_model::preview::text::CommentStyle;
use innkeeper_model::preview::{CommitSha, PreviewState};
use innkeeper_model::{Code, Explain};
use serde_json::Value;

use crate::reports::view;
use crate::support::{Stage, key, repo};

const SETTINGS: ReportSettings = ReportSettings {
    target: ReportTarget::Comment,
    deployments: false,
    checks: true,
    comment: CommentStyle {
        approve: String::new(),
        ttl: None,
    },
};

/// The states of a preview from its first commit to its live version.
const STATES: [PreviewState; 5] = [
    PreviewState::Queued,
    PreviewState::Building,
    PreviewState::SettingUp,
    PreviewState::Live,
    PreviewState::Failed,
];

fn report(sha: &CommitSha, state: PreviewState) -> Report {
    Report::of(&view(sha, state), &SETTINGS).expect("it has a pull request")
}

async fn publish(github: &Github, sha: &CommitSha, state: PreviewState) {
    let published = github.publish(&report(sha, state)).await;
    published.expect("accepted");
}

fn with_app(stage: &Stage) -> Github {
    let key = key(stage.directory.path(), "PEM");
    let app = stage.fake.add_app("1", 42, &key).expect("a key");
    Github::new(stage.settings(), Credentials::App(Arc::new(app))).expect("a client")
}

/// The states of the commit statuses.
fn statuses(stage: &Stage) -> Vec<Value> {
    stage.fake.with(|world| {
        let all = world.repos[&repo()].statuses.iter();
        all.map(|one| one.status["state"].clone()).collect()
    })
}

/// The status and conclusion of each check run.
fn runs(stage: &Stage) -> Vec<(Value, Value)> {
    stage.fake.with(|world| {
        let all = world.repos[&repo()].check_runs.iter();
        all.map(|one| (one.run["status"].clone(), one.run["conclusion"].clone()))
            .collect()
    })
}

#[tokio::test]
async fn token_sets_a_commit_status() {
    let stage = Stage::new().await;
    let (_, sha) = stage.open_pull();
    let github = stage.github();
    for state in STATES {
        publish(&github, &sha, state).await;
        publish(&github, &sha, state).await;
    }
    // One status for all steps of the work.
    assert_eq!(statuses(&stage), ["pending", "success", "failure"]);
    let last = stage.fake.with(|world| {
        let statuses = &world.repos[&repo()].statuses;
        statuses[1].status.clone()
    });
    assert_eq!(last["context"], CHECK_NAME);
    assert_eq!(last["target_url"], "https://web-7.preview.example.com");
    assert_eq!(last["description"], format!("{} is live", sha.short()));
    assert_eq!(runs(&stage), []);
}

#[tokio::test]
async fn app_creates_a_check_run() {
    let stage = Stage::new().await;
    let (_, sha) = stage.open_pull();
    let github = with_app(&stage);
    for state in STATES {
        publish(&github, &sha, state).await;
        publish(&github, &sha, state).await;
    }
    // The run that was in progress has ended.
    assert_eq!(
        runs(&stage),
        [(Value::from("completed"), Value::from("failure"))]
    );
    publish(&github, &sha, PreviewState::Queued).await;
    publish(&github, &sha, PreviewState::WaitingForApproval).await;
    assert_eq!(
        runs(&stage)[1..],
        [(Value::from("completed"), Value::from("neutral"))]
    );
    assert_eq!(statuses(&stage), [""; 0]);
}

#[tokio::test]
async fn neutral_status_does_not_block_a_merge() {
    let stage = Stage::new().await;
    let (_, sha) = stage.open_pull();
    publish(&stage.github(), &sha, PreviewState::WaitingForApproval).await;
    assert_eq!(statuses(&stage), ["success"]);
}

#[tokio::test]
async fn checks_of_others_are_left_alone() {
    let stage = Stage::new().await;
    let (_, sha) = stage.open_pull();
    stage.fake.with(|world| {
        world.add_token("ghp_other", "other-bot");
    });
    let github = stage.github();
    publish(&github, &sha, PreviewState::Live).await;
    stage.fake.with(|world| {
        let repo = world.repos.get_mut(&repo()).expect("there");
        let mut foreign = repo.statuses[0].clone();
        foreign.creator = "other-bot".to_owned();
        foreign.status["state"] = "failure".into();
        repo.statuses.push(foreign);
    });
    publish(&github, &sha, PreviewState::Live).await;
    assert_eq!(statuses(&stage), ["success", "failure"]);
}

#[tokio::test]
async fn missing_permission_is_named() {
    let stage = Stage::new().await;
    let (_, sha) = stage.open_pull();
    let github = with_app(&stage);
    stage.fake.with(|world| {
        let app = world.app.as_mut().expect("registered");
        app.lacks.insert("checks=write".to_owned());
    });
    let refused = github.publish(&report(&sha, PreviewState::Live)).await;
    let error = refused.expect_err("refused");
    assert_eq!((error.0.len(), error.code()), (1, Code::GithubFailed));
    let remedy = error.remedy().expect("a remedy");
    assert!(
        remedy.contains("Give the App or token this permission: checks: write."),
        "{remedy}"
    );
    // The comment was written nevertheless.
    let comments = stage.fake.with(|world| world.repos[&repo()].comments.len());
    assert_eq!(comments, 1);
}

#[tokio::test]
async fn archived_repository_and_locked_conversation_are_named() {
    let stage = Stage::new().await;
    let (pull_request, sha) = stage.open_pull();
    let github = stage.github();
    let set = |archived: bool, locked: bool| {
        stage.fake.with(|world| {
            let repo = world.repos.get_mut(&repo()).expect("there");
            repo.archived = archived;
            repo.locked = locked.then_some(7).into_iter().collect();
        });
    };
    set(false, true);
    let report = report(&sha, PreviewState::Live);
    let locked = github.publish(&report).await.expect_err("locked");
    let [GithubError::Locked(of)] = &locked.0[..] else {
        panic!("{locked:?}");
    };
    assert_eq!(*of, pull_request);
    // The check does not need the conversation.
    assert_eq!(statuses(&stage), ["success"]);
    set(true, false);
    let archived = github.publish(&report).await.expect_err("archived");
    assert!(
        matches!(archived.0[..], [GithubError::Archived(_)]),
        "{archived:?}"
    );
    set(false, false);
    github.publish(&report).await.expect("accepted");
}
