use std::sync::Arc;
use std::time::Duration;

use innkeeper_github::client::{Credentials, Github, GithubError};
use innkeeper_github::{EnvironmentFiles, client::App};
use innkeeper_model::preview::RepoName;
use jiff::SignedDuration;

use crate::support::{CONFIG, Stage, branch, key, repo};

const TOKENS: &str = "/app/installations/42/access_tokens";

fn app(stage: &Stage, format: &str) -> Github {
    let path = key(stage.directory.path(), format);
    let app = stage.fake.add_app("12345", 42, &path).expect("a key");
    Github::new(stage.settings(), Credentials::App(Arc::new(app))).expect("a client")
}

#[tokio::test]
async fn app_signs_in_with_either_format_of_key() {
    for format in ["PEM", "PKCS8"] {
        let stage = Stage::new().await;
        let github = app(&stage, format);
        github.branch(&repo(), &branch("main")).await.expect(format);
        assert_eq!(github.login().await.expect("known"), "innkeeper[bot]");
        let repos = github.installation_repositories().await.expect("listed");
        assert_eq!(repos, Some(vec![repo()]));
    }
}

#[tokio::test]
async fn app_token_is_shared_by_concurrent_calls() {
    let stage = Stage::new().await;
    let github = app(&stage, "PEM");
    let calls = (0..20).map(|_| {
        let github = github.clone();
        tokio::spawn(async move { github.branch(&repo(), &branch("main")).await })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.expect("no panic").expect("signed in");
    }
    assert_eq!(stage.count("POST", TOKENS), 1);
}

#[tokio::test]
async fn app_token_is_renewed_before_it_expires() {
    let stage = Stage::new().await;
    let github = app(&stage, "PEM");
    let lifetime = |seconds| {
        stage.fake.with(|world| {
            let app = world.app.as_mut().expect("an App");
            app.token_lifetime = Duration::from_secs(seconds);
        });
    };
    lifetime(299);
    for calls in 1..=2 {
        github
            .branch(&repo(), &branch("main"))
            .await
            .expect("signed in");
        assert_eq!(stage.count("POST", TOKENS), calls);
    }
    lifetime(400);
    for _ in 0..2 {
        github
            .branch(&repo(), &branch("main"))
            .await
            .expect("signed in");
    }
    assert_eq!(stage.count("POST", TOKENS), 3);
}

#[tokio::test]
async fn app_token_is_replaced_when_revoked() {
    let stage = Stage::new().await;
    let github = app(&stage, "PEM");
    github
        .branch(&repo(), &branch("main"))
        .await
        .expect("signed in");
    stage.fake.with(|world| world.tokens.clear());
    github
        .branch(&repo(), &branch("main"))
        .await
        .expect("signed in again");
    assert_eq!(stage.count("POST", TOKENS), 2);
}

#[tokio::test]
async fn app_signs_in_with_a_wrong_clock() {
    for minutes in [-30, -2, 2, 30] {
        let stage = Stage::new().await;
        let github = app(&stage, "PEM");
        stage.fake.with(|world| {
            let app = world.app.as_mut().expect("an App");
            app.clock_ahead = SignedDuration::from_mins(minutes);
        });
        let found = github.branch(&repo(), &branch("main")).await;
        assert!(found.is_ok(), "{minutes} minutes: {found:?}");
    }
}

#[tokio::test]
async fn app_with_another_key_is_rejected() {
    let stage = Stage::new().await;
    let theirs = key(stage.directory.path(), "PEM");
    stage.fake.add_app("12345", 42, &theirs).expect("a key");
    let other = key(stage.directory.path(), "PKCS8");
    let other = App::new("12345", 42, &other).expect("a key");
    let github =
        Github::new(stage.settings(), Credentials::App(Arc::new(other))).expect("a client");
    let error = github
        .branch(&repo(), &branch("main"))
        .await
        .expect_err("refused");
    assert!(matches!(error, GithubError::Unauthorized { .. }), "{error}");
}

#[tokio::test]
async fn guest_token_only_reads_one_repository() {
    let stage = Stage::new().await;
    let (pull_request, sha) = stage.open_pull();
    let other = RepoName::parse("octo/secret").expect("a repository");
    stage.fake.with(|world| {
        world.add_repo(other.clone(), stage.git_directory());
    });
    let host = app(&stage, "PEM");
    let token = host.guest_token(&repo()).await.expect("a token");
    assert!(token.narrowed && token.expires_at.is_some());
    assert!(!format!("{token:?}").contains(token.secret.expose()));

    let guest = Github::new(stage.settings(), Credentials::Token(token.secret)).expect("a client");
    let config = guest.preview_config(&repo(), &sha).await.expect("readable");
    assert_eq!(config.as_deref(), Some(CONFIG.as_bytes()));
    assert!(guest.preview_config(&other, &sha).await.is_err());
    assert!(guest.create_comment(&pull_request, "hello").await.is_err());
    assert!(guest.set_body(&pull_request, "hello").await.is_err());

    // The second has the name of a repository that the App may read.
    for name in ["octo/none", "stranger/secret"] {
        let missing = RepoName::parse(name).expect("a repository");
        let error = host.guest_token(&missing).await.expect_err("refused");
        assert!(
            matches!(error, GithubError::RepoNotAccessible(_)),
            "{error}"
        );
    }
}

#[tokio::test]
async fn guest_token_of_a_configured_token_is_not_narrowed() {
    let stage = Stage::new().await;
    let token = stage.github().guest_token(&repo()).await.expect("the same");
    assert!(!token.narrowed && token.expires_at.is_none());
    assert_eq!(
        stage
            .github()
            .installation_repositories()
            .await
            .expect("none"),
        None
    );
}

#[tokio::test]
async fn credentials_load_from_the_contracts_variables() {
    let stage = Stage::new().await;
    let path = key(stage.directory.path(), "PEM");
    stage.fake.add_app("12345", 42, &path).expect("a key");
    let file = stage.directory.path().join("preview.env");
    let text = format!(
        "GITHUB_TOKEN=unused\nGITHUB_APP_ID=12345\nGITHUB_APP_INSTALLATION_ID=42\nGITHUB_APP_PRIVATE_KEY_PATH='{}'\n",
        path.display()
    );
    std::fs::write(&file, text).expect("write");
    let files = EnvironmentFiles::read([&file]).expect("read");
    let credentials = Credentials::from_files(&files).expect("complete");
    let github = Github::new(stage.settings(), credentials).expect("a client");
    github
        .branch(&repo(), &branch("main"))
        .await
        .expect("signed in");
}
