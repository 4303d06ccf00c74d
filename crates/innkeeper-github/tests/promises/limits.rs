use std::time::{Duration, Instant};

use innkeeper_github::client::{GithubError, Settings};
use innkeeper_github::fake::FailureKind;
use innkeeper_model::{Code, Explain};
use jiff::Timestamp;

use crate::support::{Stage, branch, repo};

#[tokio::test]
async fn rate_limit_blocks_requests_until_retry_after() {
    let stage = Stage::new().await;
    let github = stage.github();
    stage
        .fake
        .with(|world| world.fail("", "/git/ref", 1, FailureKind::RetryAfter(600)));

    let error = github
        .branch(&repo(), &branch("main"))
        .await
        .expect_err("limited");
    assert_eq!(error.code(), Code::GithubRateLimited);
    assert!(error.is_transient());
    let wait = error.retry_at().expect("known") - Timestamp::now();
    assert!(
        (500.0..=600.0).contains(&wait.total(jiff::Unit::Second).expect("a time")),
        "{wait}"
    );

    // Blocks all other calls too, including those of clones.
    let sent = stage.fake.with(|world| world.requests.len());
    let clone = github.clone();
    assert!(clone.open_pull_requests(&repo()).await.is_err());
    assert_eq!(stage.fake.with(|world| world.requests.len()), sent);
}

#[tokio::test]
async fn rate_limit_shorter_than_patience_is_awaited() {
    let stage = Stage::new().await;
    stage
        .fake
        .with(|world| world.fail("", "/git/ref", 1, FailureKind::RetryAfter(1)));
    let start = Instant::now();
    stage
        .github()
        .branch(&repo(), &branch("main"))
        .await
        .expect("after the wait");
    assert!(
        start.elapsed() >= Duration::from_secs(1),
        "it was asked too early"
    );
    assert_eq!(stage.count("GET", "/repos/octo/web/git/ref/heads/main"), 2);
}

#[tokio::test]
async fn rate_limit_ends_at_its_reset() {
    let stage = Stage::new().await;
    stage
        .fake
        .with(|world| world.fail("", "/git/ref", 1, FailureKind::UsedUp(900)));
    let error = stage
        .github()
        .branch(&repo(), &branch("main"))
        .await
        .expect_err("limited");
    let wait = error.retry_at().expect("known").as_second() - Timestamp::now().as_second();
    assert!((890..=902).contains(&wait), "{wait}");
}

#[tokio::test]
async fn rate_limit_blocks_after_the_last_request() {
    let stage = Stage::new().await;
    let github = stage.github();
    stage
        .fake
        .with(|world| world.fail("", "/git/ref", 1, FailureKind::Last(900)));
    github
        .branch(&repo(), &branch("main"))
        .await
        .expect("carried out");
    let error = github
        .branch(&repo(), &branch("main"))
        .await
        .expect_err("limited");
    assert!(matches!(error, GithubError::RateLimited { .. }), "{error}");
    assert_eq!(stage.count("GET", "/repos/octo/web/git/ref/heads/main"), 1);
}

#[tokio::test]
async fn rate_limit_is_not_retried_forever() {
    let stage = Stage::new().await;
    let github = stage.client(Settings {
        attempts: 2,
        ..stage.settings()
    });
    stage
        .fake
        .with(|world| world.fail("", "/git/ref", 99, FailureKind::RetryAfter(0)));
    let error = github
        .branch(&repo(), &branch("main"))
        .await
        .expect_err("limited");
    assert_eq!(error.code(), Code::GithubRateLimited);
    assert_eq!(stage.count("GET", "/repos/octo/web/git/ref/heads/main"), 2);
}
