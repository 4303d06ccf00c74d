//! Additional previews follow the first one of their pull request.

use innkeeper_model::preview::sources::SourcePath;
use innkeeper_model::preview::{CommitSha, PreviewState};
use innkeeper_store::{
    AdditionalConfig, Approval, NewPreview, Presence, Preview, PreviewFact, Store,
};

use crate::support::{SUBNET, database, name, open};

fn path(text: &str) -> SourcePath {
    SourcePath::parse(text).expect("valid")
}

fn sha(digit: &str) -> CommitSha {
    CommitSha::parse(&digit.repeat(40)).expect("valid")
}

fn config(text: &str, slug: &str) -> AdditionalConfig {
    AdditionalConfig {
        path: path(text),
        slugs: vec![name("web-7"), name(slug)],
        exists: true,
    }
}

async fn first(store: &Store) -> Preview {
    let new = NewPreview {
        repo: "octo/web".parse().expect("valid"),
        number: Some(7),
        branch: "topic".parse().expect("valid"),
        head_repo: "fork/web".parse().ok(),
        wanted_sha: sha("a"),
    };
    let claimed = store.claim_preview(new, vec![name("web-7")]).await;
    claimed.expect("claimed")
}

#[tokio::test]
async fn additional_previews_get_commit_approval_and_removal_of_the_first() {
    let directory = tempfile::tempdir().expect("directory");
    let store = open(&database(directory.path()), SUBNET).expect("opens");
    let web = first(&store).await.record.slug;
    let api = name("web-7-api");
    let configs = || vec![config("apps/api/preview.nix", "web-7-api")];
    let follow = async || {
        store
            .follow_first_preview(&web, configs())
            .await
            .expect("recorded")
    };
    let read = async || store.preview(&api).await.expect("read").expect("recorded");

    assert_eq!(follow().await, std::slice::from_ref(&api));
    assert_eq!(follow().await, []);
    let created = read().await;
    assert_eq!(
        created.record.config_path,
        Some(path("apps/api/preview.nix"))
    );
    assert_eq!(created.record.pull_request, Some(7));
    assert_eq!(created.record.delivery_source(), None);
    assert_eq!(created.record.wanted_sha, sha("a"));
    // The pull request's deliveries are for the first one.
    let pull_request = created.record.pull_request().expect("one");
    let found = store.preview_of(&pull_request).await.expect("read");
    assert_eq!(found.expect("recorded").record.slug, web);

    store
        .approve(&web, &sha("b"), Approval::Label)
        .await
        .expect("approved");
    let head = PreviewFact::Head {
        repo: "fork/web".parse().ok(),
        branch: "topic".parse().expect("valid"),
        sha: sha("b"),
    };
    store.set_preview(&web, vec![head]).await.expect("recorded");
    let live = vec![PreviewFact::State(PreviewState::Live)];
    store.set_preview(&api, live).await.expect("recorded");
    assert_eq!(follow().await, std::slice::from_ref(&api));
    let followed = read().await;
    assert_eq!(
        (
            followed.record.wanted_sha,
            followed.record.state,
            followed.record.approved_sha
        ),
        (sha("b"), PreviewState::Queued, Some(sha("b")))
    );
    assert!(followed.approved_by_label);

    let reason = innkeeper_model::Failure::new(innkeeper_model::Code::ApprovalNeeded, "withdrawn");
    store
        .withdraw_approval(&web, reason)
        .await
        .expect("withdrawn");
    let changed = store.follow_approval(&web).await.expect("recorded");
    assert_eq!(changed, std::slice::from_ref(&api));
    assert_eq!(read().await.record.approved_sha, None);

    // A configuration that is not set any more, and the removal of the first preview.
    let none = store.follow_first_preview(&web, Vec::new()).await;
    assert_eq!(none.expect("recorded"), std::slice::from_ref(&api));
    assert_eq!(read().await.desired, Presence::Absent);
    follow().await;
    assert_eq!(read().await.desired, Presence::Present);
    let absent = vec![PreviewFact::Desired(Presence::Absent)];
    store.set_preview(&web, absent).await.expect("recorded");
    assert_eq!(follow().await, std::slice::from_ref(&api));
    assert_eq!(read().await.desired, Presence::Absent);
}
