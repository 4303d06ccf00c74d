use std::time::Duration;

use innkeeper_github::client::{Credentials, Github, GithubError, Settings};
use innkeeper_github::fake::FailureKind;
use innkeeper_model::Secret;
use innkeeper_model::preview::RepoName;
use innkeeper_model::{Code, Explain, chain};

use crate::support::{Stage, TOKEN, branch, repo};

const REF: &str = "/repos/octo/web/git/ref/heads/main";
const COMMENTS: &str = "/repos/octo/web/issues/7/comments";

#[tokio::test]
async fn transient_failures_are_retried() {
    for kind in [
        FailureKind::Status(502),
        FailureKind::Status(500),
        FailureKind::CutOff,
    ] {
        let stage = Stage::new().await;
        stage
            .fake
            .with(|world| world.fail("", "/git/ref", 2, kind.clone()));
        let found = stage.github().branch(&repo(), &branch("main")).await;
        assert!(found.is_ok(), "{kind:?}: {found:?}");
        assert_eq!(stage.count("GET", REF), 3);
    }
}

#[tokio::test]
async fn retries_are_limited() {
    let stage = Stage::new().await;
    stage
        .fake
        .with(|world| world.fail("", "/git/ref", 99, FailureKind::Status(502)));
    let error = stage
        .github()
        .branch(&repo(), &branch("main"))
        .await
        .expect_err("down");
    assert_eq!(stage.count("GET", REF), 3);
    assert_eq!(error.code(), Code::GithubFailed);
    assert!(error.is_transient());
    insta::assert_snapshot!(chain(&error), @"cannot look up branch 'main' of octo/web: GitHub returned 502 (Failed on demand)");
}

#[tokio::test]
async fn refusals_are_not_retried() {
    for (status, passing) in [(400, false), (403, false), (410, false), (451, false)] {
        let stage = Stage::new().await;
        stage
            .fake
            .with(|world| world.fail("", "/git/ref", 99, FailureKind::Status(status)));
        let error = stage
            .github()
            .branch(&repo(), &branch("main"))
            .await
            .expect_err("refused");
        assert_eq!(error.is_transient(), passing, "{error}");
        assert_eq!(stage.count("GET", REF), 1, "{status}");
    }
}

#[tokio::test]
async fn attempts_time_out() {
    let stage = Stage::new().await;
    stage
        .fake
        .with(|world| world.fail("", "/git/ref", 99, FailureKind::Slow(60_000)));
    let settings = Settings {
        timeout: Duration::from_millis(50),
        attempts: 2,
        ..stage.settings()
    };
    let error = stage
        .client(settings)
        .branch(&repo(), &branch("main"))
        .await
        .expect_err("slow");
    assert!(matches!(error, GithubError::TimedOut { .. }), "{error}");
    assert!(error.is_transient());
}

/// A comment may have been created although its response was lost.
#[tokio::test]
async fn creations_are_not_repeated() {
    let stage = Stage::new().await;
    let (pull_request, _) = stage.open_pull();
    let github = stage.github();
    for kind in [FailureKind::CutOff, FailureKind::Status(502)] {
        stage
            .fake
            .with(|world| world.fail("POST", "/comments", 1, kind));
        let error = github
            .create_comment(&pull_request, "x")
            .await
            .expect_err("unknown");
        assert!(error.is_transient(), "{error}");
    }
    assert_eq!(stage.count("POST", COMMENTS), 2, "one for each");
    // A request that was certainly not carried out is retried.
    stage
        .fake
        .with(|world| world.fail("POST", "/comments", 1, FailureKind::RetryAfter(0)));
    github
        .create_comment(&pull_request, "y")
        .await
        .expect("written");
    assert_eq!(stage.count("POST", COMMENTS), 4);
}

#[tokio::test]
async fn unreachable_server_is_named_without_secrets() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let settings = Settings {
        base_url: format!("http://{}", listener.local_addr().expect("an address")),
        first_wait: Duration::from_millis(1),
        ..Settings::default()
    };
    drop(listener);
    let credentials = Credentials::Token(Secret::new(TOKEN));
    let github = Github::new(settings, credentials).expect("a client");
    let error = github
        .branch(&repo(), &branch("main"))
        .await
        .expect_err("unreachable");
    let output = format!("{} {error:?} {github:?}", chain(&error));
    assert!(output.contains("branch 'main' of octo/web"), "{output}");
    assert!(!output.contains("hunter2"), "{output}");
}

#[tokio::test]
async fn invalid_token_is_sent_once_and_not_shown() {
    let stage = Stage::new().await;
    let credentials = Credentials::Token(Secret::new("ghp_hunter3"));
    let github = Github::new(stage.settings(), credentials).expect("a client");
    let error = github
        .branch(&repo(), &branch("main"))
        .await
        .expect_err("refused");
    assert!(matches!(error, GithubError::Unauthorized { .. }), "{error}");
    assert_eq!(stage.count("GET", REF), 1);
    let output = format!("{} {error:?} {:?}", chain(&error), error.remedy());
    assert!(!output.contains("hunter3"), "{output}");
}

#[tokio::test]
async fn requests_have_a_user_agent() {
    // The fake rejects requests without a User-Agent, like GitHub.
    let stage = Stage::new().await;
    assert_eq!(
        stage.github().login().await.expect("known"),
        "innkeeper-bot"
    );
}

#[tokio::test]
async fn redirects_are_followed_on_the_same_server_only() {
    let stage = Stage::new().await;
    let elsewhere = Stage::new().await;
    let redirect = |to: String| {
        stage
            .fake
            .with(|world| world.fail("", "/repos/octo/old/", 1, FailureKind::Redirect(to)));
    };
    let old = RepoName::parse("octo/old").expect("a repository");
    redirect(format!("{}{REF}", stage.fake.base_url()));
    stage
        .github()
        .branch(&old, &branch("main"))
        .await
        .expect("followed");
    assert_eq!(stage.count("GET", REF), 1);

    redirect(format!("{}{REF}", elsewhere.fake.base_url()));
    let error = stage
        .github()
        .branch(&old, &branch("main"))
        .await
        .expect_err("not followed");
    assert!(
        matches!(error, GithubError::Refused { status: 301, .. }),
        "{error}"
    );
    assert_eq!(elsewhere.fake.with(|world| world.requests.len()), 0);

    stage.fake.with(|world| {
        let to = REF.replace("octo/web", "octo/old");
        world.fail("", "/repos/octo/old/", 99, FailureKind::Redirect(to));
    });
    let error = stage
        .github()
        .branch(&old, &branch("main"))
        .await
        .expect_err("in circles");
    assert!(!error.is_transient(), "{error}");
}
