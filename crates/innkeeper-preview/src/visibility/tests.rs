use innkeeper_model::Explain as _;
use innkeeper_model::access::GrantKind;
use innkeeper_model::api::Verdict;
use innkeeper_model::preview::Visibility::{Private, Public, Team};
use innkeeper_model::preview::api::LinkKind;
use innkeeper_store::NewGrant;

use super::*;
use crate::fixture::{Harness, meta, preview, repo, slug};

fn asking_for(visibility: Visibility) -> Meta {
    Meta {
        visibility: Some(visibility),
        ..meta()
    }
}

/// A preview with its page as its route.
async fn shown(change: impl FnOnce(&mut PreviewsConfig)) -> Harness {
    let harness = Harness::with(change).await;
    let preview = harness.claim().await;
    let routing = &harness.previews.components.routing;
    routing.show_page(&preview).await.expect("shown");
    harness
}

fn is_checked(harness: &Harness) -> bool {
    harness.host.world().routes[&slug()].checked
}

fn listed(harness: &Harness) -> Vec<Visibility> {
    let world = harness.host.world();
    world.access.previews.iter().map(|p| p.visibility).collect()
}

async fn set(
    harness: &Harness,
    visibility: Option<Visibility>,
) -> Result<VisibilityReport, PreviewError> {
    let previews = &harness.previews;
    previews.set_visibility(&slug(), visibility, "uid:0").await
}

#[tokio::test]
async fn strictest_of_all_settings_applies() {
    let harness = Harness::new().await;
    let visitors = &harness.previews.components.visitors;
    for host in Visibility::ALL {
        for file in [None, Some(Public), Some(Team), Some(Private)] {
            for command in [None, Some(Public), Some(Team), Some(Private)] {
                let mut visitors = visitors.clone();
                let mut config = (*visitors.config).clone();
                config.visibilities.repositories.insert(repo(), host);
                visitors.config = Arc::new(config);
                let mut preview = preview();
                preview.visibility = command;
                let expected = host.max(file.unwrap_or_default());
                let expected = expected.max(command.unwrap_or_default());
                // The file of either version.
                preview.meta = file.map(asking_for);
                assert_eq!(visitors.visibility(&preview), expected);
                preview.live_meta = preview.meta.take();
                preview.meta = Some(meta());
                assert_eq!(visitors.visibility(&preview), expected);
                // A fork's file is a file like any other: it cannot be more open than the host's setting either.
                preview.record.head_repo = None;
                assert_eq!(visitors.visibility(&preview), expected);
            }
        }
    }
}

#[tokio::test]
async fn setting_is_in_force_when_the_command_returns() {
    let harness = shown(|_| {}).await;
    assert!(!is_checked(&harness));
    let report = set(&harness, Some(Team)).await.expect("set");
    assert_eq!((report.visibility, report.closed), (Team, false));
    assert!(is_checked(&harness));
    assert_eq!(listed(&harness), [Team]);
    let access = harness.host.world().access.previews[0].clone();
    assert_eq!((access.slug, access.fork), (slug(), false));
    assert_eq!(access.hosts[0].split('.').next(), Some("web-7"));
    // Later routes keep it.
    let preview = harness.preview().await.expect("recorded");
    let routing = &harness.previews.components.routing;
    routing.show_page(&preview).await.expect("shown");
    assert!(is_checked(&harness));
    let view = harness.previews.show(&slug()).await.expect("shown");
    assert_eq!(view.visibility, Team);

    set(&harness, None).await.expect("set");
    assert!(!is_checked(&harness));
    assert_eq!(listed(&harness), []);
}

#[tokio::test]
async fn more_open_setting_than_the_others_is_refused() {
    let harness = shown(|config| config.visibilities.default = Team).await;
    assert!(is_checked(&harness));
    let error = set(&harness, Some(Public)).await.expect_err("refused");
    assert_eq!(error.code(), Code::VisibilityTooOpen);
    assert!(
        error
            .to_string()
            .contains("the host's setting for octo/web is team"),
        "{error}"
    );
    set(&harness, Some(Private)).await.expect("stricter");
    let error = Harness::new().await;
    let unknown = set(&error, Some(Team)).await.expect_err("no preview");
    assert_eq!(unknown.code(), Code::PreviewNotFound);
}

#[tokio::test]
async fn host_without_a_gateway_refuses_and_closes() {
    let harness = shown(|config| config.checks_visitors = false).await;
    let error = set(&harness, Some(Team)).await.expect_err("refused");
    assert_eq!(error.code(), Code::VisitorsUnchecked);
    assert!(!is_checked(&harness));
    // The file of a repository is not asked: the preview is closed, and its explanation has the reason.
    harness
        .set(vec![PreviewFact::Evaluated {
            key: "k".to_owned(),
            closure: crate::fixture::closure(),
            meta: Box::new(asking_for(Private)),
        }])
        .await;
    let visitors = &harness.previews.components.visitors;
    visitors.enforce(&slug()).await.expect("enforced");
    assert!(is_checked(&harness));
    let explained = harness.previews.explain(&slug()).await.expect("explained");
    let link = (explained.chain.iter()).find(|link| link.link == LinkKind::Visitors);
    let link = link.expect("a link");
    assert_eq!(link.verdict, Verdict::Broken);
    assert!(link.finding.contains("no gateway"), "{link:?}");
}

#[tokio::test]
async fn recorded_setting_is_enforced_after_a_crash() {
    let harness = shown(|_| {}).await;
    // As a daemon that was killed right after the record.
    let facts = vec![PreviewFact::Visibility(Some(Private))];
    harness.set(facts).await;
    assert!(!is_checked(&harness));
    harness.previews.enforce_visibilities().await;
    assert!(is_checked(&harness));
    assert_eq!(listed(&harness), [Private]);
}

#[tokio::test]
async fn route_is_closed_although_the_list_cannot_be_written() {
    let harness = shown(|_| {}).await;
    harness.host.fail("access.publish", 1);
    set(&harness, Some(Team)).await.expect_err("not published");
    assert!(is_checked(&harness), "closed all the same");
    // Repaired by the next resync.
    let visitors = &harness.previews.components.visitors;
    visitors.enforce_all().await.expect("enforced");
    assert_eq!(listed(&harness), [Team]);
}

#[tokio::test]
async fn list_has_the_valid_grants_of_previews_that_are_not_public() {
    let harness = shown(|_| {}).await;
    let now = Timestamp::now();
    let hour = jiff::SignedDuration::from_hours(1);
    for expires_at in [now - hour, now + hour] {
        let new = NewGrant {
            slug: slug(),
            kind: GrantKind::Share,
            created_by: "uid:0".to_owned(),
            expires_at,
        };
        let grant = harness.store.create_grant(new, |_| [0xab; 32]).await;
        grant.expect("recorded");
    }
    let grants = || harness.host.world().access.grants.clone();
    let visitors = &harness.previews.components.visitors;
    visitors.publish().await.expect("published");
    assert_eq!(grants(), [], "of a public preview");
    set(&harness, Some(Team)).await.expect("set");
    let published = grants();
    let [grant] = &published[..] else {
        panic!("{published:?}");
    };
    assert_eq!((grant.id.0, &grant.sha256), (2, &"ab".repeat(32)));
}
