//! Repositories are known by GitHub's number, in whatever order their names change and their deliveries arrive.

use std::collections::BTreeSet;

use innkeeper_model::preview::{PrAction, RepoName};
use innkeeper_store::{NewDelivery, Presence, Receipt, RepoIdentity, Store};

use crate::deliveries::{delivery, sha};
use crate::support::{Fixture, name};

const SUBNET: &str = "10.100.0.0/16";
/// The number of the repository that was renamed, and of the one that has its former name now.
const RENAMED: u64 = 1;
const SUCCESSOR: u64 = 2;

fn repo(text: &str) -> RepoName {
    RepoName::parse(text).expect("a name")
}

/// A push to pull request 7 of a repository by the name that it had then.
fn push(id: &str, repo_id: u64, repo_name: &str, commit: u8) -> NewDelivery {
    let mut new = delivery(id, 7, PrAction::Synchronize, commit);
    new.event.repo_id = Some(repo_id);
    new.event.pull_request.repo = repo(repo_name);
    new.event.head_repo = Some(repo(repo_name));
    new.slugs = ["web-7", "web-7-b", "web-7-c"].map(name).to_vec();
    new
}

/// What the daemon does for repositories whose names may have changed.
async fn look(store: &Store) {
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
async fn in_any_order_each_repository_keeps_its_one_preview() {
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
        for looks_between in [false, true] {
            tried += 1;
            let fixture = Fixture::new(SUBNET);
            let store = &fixture.store;
            for step in order {
                let recorded = store.record_delivery(steps[step]()).await;
                assert!(matches!(recorded, Ok(Receipt::New { .. })), "{order:?}");
                if looks_between {
                    look(store).await;
                }
            }
            while !store.repos_to_check().await.expect("reads").is_empty() {
                look(store).await;
            }
            // The periodic look at every repository with previews.
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
async fn a_successor_has_no_right_to_the_secrets_of_a_name() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let identity = async |text: &str| store.repo_identity(&repo(text)).await.expect("reads");
    assert!(identity("octo/web").await.is_first, "nobody had it");
    let record = async |new| store.record_delivery(new).await.expect("records");
    record(push("a", RENAMED, "octo/web", 1)).await;
    assert!(identity("Octo/Web").await.is_first);
    record(push("b", SUCCESSOR, "octo/web", 2)).await;
    let successor = RepoIdentity {
        id: Some(SUCCESSOR),
        is_first: false,
    };
    assert_eq!(identity("octo/web").await, successor);
    // Nor has one that GitHub shows under the name.
    look(store).await;
    assert_eq!(identity("octo/web").await, successor);
    assert!(identity("octo/new").await.is_first);
}

#[tokio::test]
async fn a_repository_that_is_deleted_leaves_no_preview_and_gets_none() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let record = async |new| store.record_delivery(new).await.expect("records");
    record(push("a", RENAMED, "octo/web", 1)).await;
    let other = store.mark_repo_deleted(SUCCESSOR, &repo("octo/web")).await;
    assert_eq!(other.expect("records"), [], "another one had the name");
    let gone = store.mark_repo_deleted(RENAMED, &repo("octo/web")).await;
    assert_eq!(gone.expect("records"), [name("web-7")]);
    let gone = store.previews_of_deleted_repos().await.expect("reads");
    assert_eq!(gone, [name("web-7")]);
    let late = record(push("b", RENAMED, "octo/web", 2)).await;
    assert!(matches!(late, Receipt::Stale { .. }), "{late:?}");
    // One that is made anew under the name has nothing of it.
    let anew = record(push("c", SUCCESSOR, "octo/web", 3)).await;
    let slug = Some(name("web-7-b"));
    assert_eq!(anew, Receipt::New { slug });
}
