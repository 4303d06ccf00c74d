use innkeeper_model::preview::sources::SourcePath;
use innkeeper_store::{Presence, PreviewFact};

use super::*;
use crate::fixture::{Harness, branch, repo, slug};
use crate::sources::tests::Stage;

#[tokio::test]
async fn each_configuration_of_a_commit_has_a_preview() {
    let stage = Stage::new().await;
    stage.write("apps/web/preview.nix", "{ }");
    stage.write("apps/api/preview.nix", "{ }");
    let sha = stage.commit();
    let paths = ["web", "api", "none"].map(|app| format!("apps/{app}/preview.nix"));
    let paths = paths.map(|path| SourcePath::parse(&path).expect("valid"));
    let mut harness = Harness::with(|config| {
        config.config_paths.default = paths.to_vec();
        config.style.checks = true;
    })
    .await;
    let git = stage.directory.path().join(".git");
    harness.github.with(|world| {
        world.add_repo(repo(), git);
    });
    harness.claim().await;
    let head = PreviewFact::Head {
        repo: Some(repo()),
        branch: branch(),
        sha: sha.clone(),
    };
    let first = harness.set(vec![head]).await;
    let additional = harness.parts.parts.executor.additional.clone();
    let follow = async |plan| additional.follow(&first, plan).await.expect("followed");

    follow(Plan::Maintain).await;
    assert_eq!(harness.store.previews().await.expect("read").len(), 1);
    follow(Plan::BringUp).await;
    assert!(harness.was_woken());
    let all = harness.store.previews().await.expect("read");
    let [_, api] = all.as_slice() else {
        panic!("{all:?}");
    };
    assert_eq!(api.record.slug.as_str(), "web-7-api");
    assert_eq!(api.record.config_path.as_ref(), Some(&paths[1]));
    assert_eq!(api.record.wanted_sha, sha);
    // The third configuration, which the commit lacks, does not block a merge.
    let [[name, state, _]] = harness.wait_for_statuses(1).await.try_into().expect("one");
    let none = "innkeeper/preview: apps/none/preview.nix";
    assert_eq!((&*name, &*state), (none, "success"));

    harness
        .set(vec![PreviewFact::Desired(Presence::Absent)])
        .await;
    follow(Plan::Remove).await;
    let api = harness.store.preview(&api.record.slug).await.expect("read");
    assert_eq!(api.expect("recorded").desired, Presence::Absent);
    assert_eq!(first.record.slug, slug());
}

#[tokio::test]
async fn without_the_first_configuration_there_is_no_preview() {
    let stage = Stage::new().await;
    stage.write("apps/api/preview.nix", "{ }");
    let sha = stage.commit();
    let paths = ["web", "api"].map(|app| format!("apps/{app}/preview.nix"));
    let paths = paths.map(|path| SourcePath::parse(&path).expect("valid"));
    let harness = Harness::with(|config| config.config_paths.default = paths.to_vec()).await;
    let git = stage.directory.path().join(".git");
    harness.github.with(|world| {
        world.add_repo(repo(), git);
    });
    harness.claim_unseen().await;
    let head = PreviewFact::Head {
        repo: Some(repo()),
        branch: branch(),
        sha,
    };
    let first = harness.set(vec![head]).await;
    let additional = harness.parts.parts.executor.additional.clone();
    let followed = additional.follow(&first, Plan::BringUp).await;
    followed.expect("followed");
    assert_eq!(harness.store.previews().await.expect("read").len(), 1);
}
