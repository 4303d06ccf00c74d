//! The migration of previews' visitors, share links and tokens.

use innkeeper_model::access::{GrantId, GrantKind};
use innkeeper_model::preview::Visibility;
use innkeeper_store::Store;

use crate::dumps::{VERSION_30, VERSION_31};
use crate::migrations::restore;
use crate::support::name;

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
