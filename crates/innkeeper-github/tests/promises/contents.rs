use innkeeper_github::client::{GithubError, Permission};
use innkeeper_model::preview::RepoName;
use innkeeper_model::{Code, Explain};

use crate::support::{CONFIG, Stage, branch, repo, unknown_sha};

#[tokio::test]
async fn preview_config_is_read_at_exactly_one_commit() {
    let stage = Stage::new().await;
    let old = stage
        .github()
        .branch(&repo(), &branch("main"))
        .await
        .expect("main");
    let new = stage.commit(
        "main",
        &[("preview-config.nix", "new\r\n\t\u{1f916}"), ("a", "b")],
    );
    let none = stage.commit("bare", &[("a", "b")]);
    let github = stage.github();

    let read = async |sha| {
        github
            .preview_config(&repo(), &sha)
            .await
            .expect("an answer")
    };
    assert_eq!(read(old).await.as_deref(), Some(CONFIG.as_bytes()));
    assert_eq!(
        read(new).await.as_deref(),
        Some("new\r\n\t\u{1f916}".as_bytes())
    );
    assert_eq!(read(none).await, None);
}

#[tokio::test]
async fn a_configuration_has_at_most_256_kib() {
    let stage = Stage::new().await;
    let most = "x".repeat(256 * 1024);
    let fits = stage.commit("fits", &[("preview-config.nix", &most)]);
    let more = stage.commit("more", &[("preview-config.nix", &format!("{most}x"))]);
    let github = stage.github();

    let read = github.preview_config(&repo(), &fits).await.expect("fits");
    assert_eq!(read.map(|bytes| bytes.len()), Some(most.len()));
    let error = github
        .preview_config(&repo(), &more)
        .await
        .expect_err("too long");
    assert!(matches!(error, GithubError::TooLong { .. }), "{error}");
    assert!(
        error.to_string().contains("preview-config.nix of octo/web"),
        "{error}"
    );
    assert!(!error.is_transient());
}

#[tokio::test]
async fn missing_file_commit_and_repository_are_distinguished() {
    let stage = Stage::new().await;
    let github = stage.github();
    let other = RepoName::parse("octo/other").expect("a repository");

    let error = github
        .preview_config(&repo(), &unknown_sha())
        .await
        .expect_err("no commit");
    assert!(
        matches!(error, GithubError::CommitNotFound { .. }),
        "{error}"
    );
    let error = github
        .preview_config(&other, &unknown_sha())
        .await
        .expect_err("no repository");
    assert_eq!(error.code(), Code::RepoNotAccessible);
    let error = github
        .branch(&other, &branch("main"))
        .await
        .expect_err("no repository");
    assert_eq!(error.code(), Code::RepoNotAccessible);
    let error = github
        .open_pull_requests(&other)
        .await
        .expect_err("no repository");
    assert_eq!(error.code(), Code::RepoNotAccessible);
    let error = github
        .branch(&repo(), &branch("none"))
        .await
        .expect_err("no branch");
    assert_eq!(error.code(), Code::BranchNotFound);
    insta::assert_snapshot!(error, @"repository octo/web has no branch 'none'");
}

#[tokio::test]
async fn branch_is_found_by_any_valid_name() {
    let stage = Stage::new().await;
    let github = stage.github();
    for name in [
        "a/b",
        "it's",
        "50%",
        "a#b",
        "a&b=c",
        "日本",
        "$(touch${IFS}x)",
        "a;b",
        "a+b",
    ] {
        let sha = stage.commit(name, &[("name", name)]);
        let found = github.branch(&repo(), &branch(name)).await;
        assert_eq!(found.expect(name), sha, "{name}");
    }
    // A prefix of a name does not match.
    assert!(github.branch(&repo(), &branch("a")).await.is_err());
}

#[tokio::test]
async fn permission_to_approve_requires_write_access() {
    let stage = Stage::new().await;
    let github = stage.github();
    stage.fake.with(|world| {
        let found = world.repos.get_mut(&repo()).expect("the repository");
        for (login, permission) in [("boss", "admin"), ("dev[bot]", "write"), ("guest", "read")] {
            found
                .permissions
                .insert(login.to_owned(), permission.to_owned());
        }
    });
    for (login, permission, may) in [
        ("boss", Permission::Admin, true),
        ("dev[bot]", Permission::Write, true),
        ("guest", Permission::Read, false),
        ("mallory", Permission::None, false),
        ("../../../boss", Permission::None, false),
    ] {
        let found = github.permission(&repo(), login).await.expect(login);
        assert_eq!((found, found.can_write()), (permission, may), "{login}");
    }
    let other = RepoName::parse("octo/other").expect("a repository");
    assert!(github.permission(&other, "boss").await.is_err());
}
