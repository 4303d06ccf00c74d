//! The migration of previews' visitors, share links and tokens, and the end of expired ones.

use innkeeper_model::access::{GrantId, GrantKind};
use innkeeper_model::preview::Visibility;
use innkeeper_store::{NewGrant, Store};
use jiff::{SignedDuration, Timestamp};

use crate::dumps::{VERSION_30, VERSION_31, VERSION_32};
use crate::migrations::restore;
use crate::support::{Fixture, SUBNET, claim, name};

#[tokio::test]
async fn version_31_is_migrated_with_its_data() {
    let visibility = async |store: &Store| {
        let preview = store.preview(&name("web-7")).await.expect("reads");
        preview.expect("there").visibility
    };
    let (_directory, store) = restore(VERSION_30);
    assert_eq!(visibility(&store).await, None);
    assert_eq!(store.grants().await.expect("reads"), []);
    let (_directory, store) = restore(VERSION_31);
    assert_eq!(visibility(&store).await, Some(Visibility::Team));
    let grants = store.grants().await.expect("reads");
    let [grant] = &grants[..] else {
        panic!("{grants:?}");
    };
    assert_eq!(
        (grant.record.id, grant.record.kind),
        (GrantId(2), GrantKind::Bypass)
    );
    assert_eq!(grant.digest, [0; 32]);
}

#[tokio::test]
async fn version_32_is_migrated_with_its_data() {
    for dump in [VERSION_31, VERSION_32] {
        let (_directory, store) = restore(dump);
        let now = "octo/site".to_owned().try_into().expect("a repository");
        let former = "octo/web".to_owned().try_into().expect("a repository");
        let moved = store.record_repo_name(1_296_269, &former, &now).await;
        moved.expect("renames");
        let tokens = store.tokens().await.expect("reads");
        let repos: Vec<_> = tokens.into_iter().map(|token| token.record.repo).collect();
        assert_eq!(repos, [Some(now), None, None]);
    }
}

#[tokio::test]
async fn grants_that_expired_a_week_ago_are_deleted_with_the_next_one() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    claim(store, 7, &["web-7"]).await.expect("claims");
    let ids = async |hours: i64| {
        let new = NewGrant {
            slug: name("web-7"),
            kind: GrantKind::Share,
            created_by: "uid:0".to_owned(),
            expires_at: Timestamp::now() + SignedDuration::from_hours(hours),
        };
        store.create_grant(new, |_| [7; 32]).await.expect("creates");
        let grants = store.grants().await.expect("reads").into_iter();
        grants.map(|grant| grant.record.id.0).collect::<Vec<_>>()
    };
    assert_eq!(ids(-8 * 24).await, [1]);
    assert_eq!(ids(-24).await, [2]);
    assert_eq!(ids(24).await, [2, 3]);
}
