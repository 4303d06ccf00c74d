use innkeeper_github::client::{GitKind, GithubError};
use innkeeper_github::fake::FailureKind;
use innkeeper_model::preview::RepoName;
use innkeeper_model::{Code, Explain};

use crate::support::{CONFIG, Stage, branch, repo, unknown_sha};

#[tokio::test]
async fn files_are_read_by_their_hashes() {
    let stage = Stage::new().await;
    let github = stage.github();
    let sha = github.branch(&repo(), &branch("main")).await.expect("main");
    let root = github.root_folder(&repo(), &sha).await.expect("readable");
    assert!(!root.truncated);
    let [entry] = root.entries.as_slice() else {
        panic!("{root:?}");
    };
    assert_eq!(
        (entry.path.as_str(), entry.kind, entry.size),
        ("preview-config.nix", GitKind::File, CONFIG.len() as u64)
    );
    let below = github.folder(&repo(), &sha.clone().into(), true).await;
    assert_eq!(below.expect("readable"), root);
    let read = async |limit| github.blob(&repo(), &entry.id, "the file", limit).await;
    assert_eq!(read(1000).await.expect("read"), CONFIG.as_bytes());
    let error = read(3).await.expect_err("too long");
    assert!(matches!(error, GithubError::TooLong { .. }), "{error}");
}

#[tokio::test]
async fn contents_with_another_hash_are_rejected() {
    let stage = Stage::new().await;
    let github = stage.github();
    let sha = github.branch(&repo(), &branch("main")).await.expect("main");
    let root = github.root_folder(&repo(), &sha).await.expect("readable");
    let other = RepoName::parse("octo/other").expect("a repository");
    // The server returns another file in place of the wanted one.
    let id = &root.entries[0].id;
    let to = format!(
        "/repos/octo/web/contents/preview-config.nix?ref={}",
        stage.commit("x", &[("preview-config.nix", "{ }")])
    );
    stage
        .fake
        .with(|world| world.fail("GET", "/git/blobs/", 1, FailureKind::Redirect(to)));
    let error = github.blob(&repo(), id, "preview-config.nix", 1000).await;
    let error = error.expect_err("another file");
    assert!(
        matches!(error, GithubError::InvalidResponse { .. }),
        "{error}"
    );
    let error = github
        .root_folder(&other, &sha)
        .await
        .expect_err("no repository");
    assert_eq!(error.code(), Code::RepoNotAccessible);
    let error = github
        .root_folder(&repo(), &unknown_sha())
        .await
        .expect_err("no commit");
    assert!(
        matches!(error, GithubError::CommitNotFound { .. }),
        "{error}"
    );
}
