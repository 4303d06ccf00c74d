//! Repositories: identified by GitHub's number, in whatever order renames and deliveries arrive.

use std::collections::BTreeSet;

use innkeeper_model::access::{Role, TokenName};
use innkeeper_model::preview::{BranchName, PrAction, PullRequest, RepoName};
use innkeeper_store::{
    NewDelivery, NewPreview, NewToken, NextDelivery, Presence, PreviewFact, Receipt, RepoIdentity,
    Store,
};

use crate::support::{Fixture, SUBNET, claim, delivery, name, preview, sha, with_event};

/// The number of the repository that was renamed.
const RENAMED: u64 = 1;
/// The number of the repository that took over its name.
const SUCCESSOR: u64 = 2;
fn repo(text: &str) -> RepoName {
    RepoName::parse(text).expect("a name")
}

/// Returns a push to pull request 7 of a repository under the name that it had then.
fn push(id: &str, repo_id: u64, repo_name: &str, commit: u8) -> NewDelivery {
    let new = delivery(id, 7, PrAction::Synchronize, commit);
    let mut new = with_event(new, |event| {
        event.repo_id = Some(repo_id);
        event.pull_request.repo = repo(repo_name);
        event.head_repo = Some(repo(repo_name));
    });
    new.slugs = ["web-7", "web-7-b", "web-7-c"].map(name).to_vec();
    new
}

/// Records the current names of repositories whose names may have changed, as the daemon does.
async fn resolve_names(store: &Store) {
    for known_as in store.repos_to_check().await.expect("reads") {
        let id = store.repo_identity(&known_as).await.expect("reads").id;
        let (id, now) = match id {
            Some(RENAMED) => (RENAMED, "octo/new"),
            Some(SUCCESSOR) => (SUCCESSOR, "octo/web"),
            other => panic!("{known_as} is {other:?}"),
        };
        store
            .record_repo_name(id, &known_as, &repo(now))
            .await
            .expect("names");
    }
}

#[tokio::test]
async fn each_repository_keeps_one_preview_in_any_order() {
    type Step = fn() -> NewDelivery;
    let steps: [Step; 4] = [
        || push("before", RENAMED, "octo/web", 1),
        || push("after", RENAMED, "octo/new", 1),
        || push("theirs", SUCCESSOR, "octo/web", 2),
        || push("late", RENAMED, "octo/web", 1),
    ];
    let orders = (0..256).map(|n| [n % 4, n / 4 % 4, n / 16 % 4, n / 64]);
    let orders = orders.filter(|order| BTreeSet::from(*order).len() == 4);
    let mut tried = 0;
    for order in orders {
        for resolve_between in [false, true] {
            tried += 1;
            let fixture = Fixture::new(SUBNET);
            let store = &fixture.store;
            for step in order {
                let recorded = store.record_delivery(steps[step]()).await;
                assert!(matches!(recorded, Ok(Receipt::New { .. })), "{order:?}");
                if resolve_between {
                    resolve_names(store).await;
                }
            }
            while !store.repos_to_check().await.expect("reads").is_empty() {
                resolve_names(store).await;
            }
            // The periodic check of every repository with previews.
            for (id, now) in [(RENAMED, "octo/new"), (SUCCESSOR, "octo/web")] {
                store
                    .record_repo_name(id, &repo(now), &repo(now))
                    .await
                    .expect("names");
            }
            let previews = store.previews().await.expect("reads");
            let kept: BTreeSet<_> = previews
                .iter()
                .map(|preview| {
                    assert_eq!(preview.desired, Presence::Present);
                    assert!(!preview.record.is_from_fork(), "{order:?}: {preview:?}");
                    let sha = preview.record.wanted_sha.clone();
                    (preview.record.repo.to_string(), sha)
                })
                .collect();
            let expected = [("octo/new", sha(1)), ("octo/web", sha(2))];
            assert_eq!(
                kept,
                expected.map(|(repo, sha)| (repo.to_owned(), sha)).into(),
                "{order:?}"
            );
            assert_eq!(previews.len(), 2, "{order:?}: {previews:#?}");
        }
    }
    assert_eq!(tried, 48);
}

#[tokio::test]
async fn successor_of_a_name_inherits_no_secrets() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let identity = async |text: &str| store.repo_identity(&repo(text)).await.expect("reads");
    assert!(identity("octo/web").await.is_first, "the name is new");
    let record = async |new| store.record_delivery(new).await.expect("records");
    record(push("a", RENAMED, "octo/web", 1)).await;
    assert!(identity("Octo/Web").await.is_first);
    record(push("b", SUCCESSOR, "octo/web", 2)).await;
    let successor = RepoIdentity {
        id: Some(SUCCESSOR),
        is_first: false,
    };
    assert_eq!(identity("octo/web").await, successor);
    // GitHub's answer does not change that.
    resolve_names(store).await;
    assert_eq!(identity("octo/web").await, successor);
    assert!(identity("octo/new").await.is_first);
}

#[tokio::test]
async fn deleted_repository_has_no_previews() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let record = async |new| store.record_delivery(new).await.expect("records");
    record(push("a", RENAMED, "octo/web", 1)).await;
    let other = store.mark_repo_deleted(SUCCESSOR, &repo("octo/web")).await;
    assert_eq!(
        other.expect("records"),
        [],
        "the name is another repository's"
    );
    let gone = store.mark_repo_deleted(RENAMED, &repo("octo/web")).await;
    assert_eq!(gone.expect("records"), [name("web-7")]);
    let gone = store.previews_of_deleted_repos().await.expect("reads");
    assert_eq!(gone, [name("web-7")]);
    let late = record(push("b", RENAMED, "octo/web", 2)).await;
    assert!(matches!(late, Receipt::Stale { .. }), "{late:?}");
    // A new repository under the name inherits no preview.
    let successor = record(push("c", SUCCESSOR, "octo/web", 3)).await;
    let slug = Some(name("web-7-b"));
    assert_eq!(successor, Receipt::New { slug });
}

#[tokio::test]
async fn token_of_a_repository_follows_its_renames() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let token = async |name: &str| {
        let new = NewToken {
            name: TokenName::parse(name).expect("a name"),
            role: Role::Viewer,
            repo: Some(repo("octo/web")),
            created_by: "uid:0".to_owned(),
            expires_at: None,
            session: None,
        };
        let created = store.create_token(new, |_| [7; 32]).await;
        created.expect("creates").record.id
    };
    let record = async |id, former: &str, now: &str| {
        let (former, now) = (repo(former), repo(now));
        let recorded = store.record_repo_name(id, &former, &now).await;
        recorded.expect("records");
    };
    let repo_of = async |id| store.token_repo(id).await.expect("reads");
    // Before the repository is known, and after that.
    let early = token("early").await;
    record(RENAMED, "octo/web", "octo/web").await;
    let late = token("late").await;
    let revoked = token("revoked").await;
    let name = TokenName::parse("revoked").expect("a name");
    store.revoke_token(&name).await.expect("revokes");
    // The successor is seen before the new name.
    record(SUCCESSOR, "octo/web", "octo/web").await;
    for id in [early, late] {
        let unknown = repo_of(id).await.expect("limited");
        assert_eq!(unknown.owner(), "renamed-");
    }
    record(RENAMED, "octo/web", "octo/new").await;
    for id in [early, late] {
        assert_eq!(repo_of(id).await, Some(repo("octo/new")));
    }
    let of_successor = token("successor").await;
    assert_eq!(repo_of(of_successor).await, Some(repo("octo/web")));
    assert_eq!(repo_of(revoked).await, Some(repo("octo/web")));
}

#[tokio::test]
async fn rename_moves_previews_and_deliveries() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let former = preview(1).repo;
    let now = RepoName::parse("octo/new").expect("a repository");
    let slugs = ["web-1", "web-2", "web-3", "fork"];
    for (number, slug) in (1..).zip(slugs) {
        claim(store, number, &[slug]).await.expect("claims");
    }
    let theirs = vec![PreviewFact::Head {
        repo: Some(RepoName::parse("mallory/web").expect("a repository")),
        branch: BranchName::parse("topic").expect("a branch"),
        sha: sha(1),
    }];
    store.set_preview(&name("fork"), theirs).await.expect("set");
    let there = NewPreview {
        repo: now.clone(),
        head_repo: Some(now.clone()),
        ..preview(2)
    };
    let there = store.claim_preview(there, vec![name("new-2")]).await;
    there.expect("claims");
    let waits = delivery("d", 3, PrAction::Synchronize, 1);
    store.record_delivery(waits).await.expect("records");

    let moved = store
        .record_repo_name(77, &former, &now)
        .await
        .expect("renames");
    assert_eq!(moved, 3);
    let repos = async |slug: &str| {
        let record = store.preview(&name(slug)).await.expect("reads");
        let record = record.expect("kept").record;
        (record.repo.clone(), record.is_from_fork())
    };
    assert_eq!(repos("web-1").await, (now.clone(), false));
    assert_eq!(repos("web-3").await, (now.clone(), false));
    assert_eq!(repos("fork").await, (now.clone(), true));
    let duplicate = store.preview(&name("web-2")).await.expect("reads");
    let duplicate = duplicate.expect("kept");
    assert_eq!(duplicate.desired, Presence::Absent);
    assert!(duplicate.record.repo != now && duplicate.record.repo != former);
    let pull_request = PullRequest {
        repo: now.clone(),
        number: 3,
    };
    let NextDelivery::Process(waiting) = store.next_delivery(&pull_request).await.expect("reads")
    else {
        panic!("the delivery is lost");
    };
    let event = waiting.event.as_pull_request().expect("a push");
    assert_eq!(event.pull_request, pull_request);
    assert_eq!(event.head_repo, Some(now.clone()));
    let again = store
        .record_repo_name(77, &former, &now)
        .await
        .expect("again");
    assert_eq!(again, 0);
}
