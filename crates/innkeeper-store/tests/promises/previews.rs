//! Previews: slugs, desired state, approvals, expiry.

use std::time::Duration;

use innkeeper_model::preview::{BranchName, CommitSha, EnvName, PrAction, PreviewState, RepoName};
use innkeeper_model::{Code, Explain, Failure, GuestKind};
use innkeeper_store::{
    Approval, DeliveryOutcome, NewPreview, Presence, PreviewFact, Receipt, RunningTime, StoreError,
};
use jiff::Timestamp;

use crate::support::{
    Fixture, SUBNET, claim, closure, create, delivery, meta, name, new_guest, preview,
    pull_request, sha,
};

#[tokio::test]
async fn pull_request_takes_over_a_manual_preview() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let by_hand = || NewPreview {
        number: None,
        ..preview(1)
    };
    let (one, other) = tokio::join!(
        store.claim_preview(by_hand(), vec![name("one")]),
        store.claim_preview(by_hand(), vec![name("other")]),
    );
    let refused = match (one, other) {
        (Ok(_), Err(refused)) | (Err(refused), Ok(_)) => refused,
        both => panic!("{both:?}"),
    };
    assert_eq!(refused.code(), Code::SlugConflict);
    let there = store.previews().await.expect("reads").remove(0).record.slug;
    let text = format!("{refused}; {}", refused.remedy().expect("one"));
    assert!(
        text.contains(&format!(
            "already has a preview: '{there}'; `preview update {there}`"
        )),
        "{text}"
    );
    let elsewhere = NewPreview {
        branch: BranchName::parse("another").expect("a branch"),
        ..by_hand()
    };
    store
        .claim_preview(elsewhere, vec![name("another")])
        .await
        .expect("another branch");

    let opened = delivery("d", 1, PrAction::Opened, 1);
    let recorded = store.record_delivery(opened).await.expect("records");
    assert_eq!(
        recorded,
        Receipt::New {
            slug: Some(there.clone())
        }
    );
    let known = store.preview_of(&pull_request(1)).await.expect("reads");
    assert_eq!(known.expect("taken").record.slug, there);
    // A second pull request of the branch gets a preview of its own.
    let second = claim(store, 2, &["web-2"]).await;
    assert_eq!(second.expect("claims"), "web-2");
    // A branch of the same name in a fork is another branch.
    let theirs = NewPreview {
        head_repo: Some(RepoName::parse("mallory/web").expect("a repository")),
        branch: BranchName::parse("another").expect("a branch"),
        ..preview(3)
    };
    let theirs = store.claim_preview(theirs, vec![name("web-3")]).await;
    assert_eq!(theirs.expect("claims").record.slug, name("web-3"));
}

#[tokio::test]
async fn slug_belongs_to_one_preview_until_deletion() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    assert_eq!(claim(store, 1, &["web-1"]).await.expect("claims"), "web-1");
    let other = claim(store, 2, &["web-1", "web-2"]).await;
    assert_eq!(other.expect("claims"), "web-2");
    let refused = claim(store, 3, &["web-1", "web-2"])
        .await
        .expect_err("taken");
    assert_eq!(refused.code(), Code::SlugConflict);
    assert_eq!(
        refused.to_string(),
        "cannot create a preview of octo/web#3: the slugs 'web-1' and 'web-2' are taken"
    );
    assert_eq!(claim(store, 1, &["new"]).await.expect("known"), "web-1");

    let fixture = fixture.reopened().await;
    let store = &fixture.store;
    let known = store.preview_of(&pull_request(2)).await.expect("reads");
    assert_eq!(known.expect("kept").record.slug, name("web-2"));
    for _ in 0..2 {
        store.delete_preview(&name("web-1")).await.expect("forgets");
    }
    assert_eq!(claim(store, 3, &["web-1"]).await.expect("claims"), "web-1");
    let slugs: Vec<_> = store.previews().await.expect("reads");
    assert_eq!(slugs.len(), 2);
}

#[tokio::test]
async fn previews_and_agents_share_a_namespace() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    create(store, "web-1").await;
    assert_eq!(claim(store, 1, &["web-1", "x"]).await.expect("claims"), "x");
    let refused = store.create_guest(new_guest("x"), "uid:0").await;
    assert!(
        matches!(&refused, Err(StoreError::NameOfPreview { owner, .. }) if owner == "octo/web#1"),
        "{refused:?}"
    );
    let mut own = new_guest("x");
    own.kind = GuestKind::Preview;
    store
        .create_guest(own, "uid:0")
        .await
        .expect("its own guest");
}

#[tokio::test]
async fn preview_facts_survive_a_restart() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let slug = name("web-1");
    claim(store, 1, &["web-1"]).await.expect("claims");
    let fault = Failure::new(Code::Internal, "no");
    let active = Timestamp::from_microsecond(1_800_000_000_000_001).expect("time");
    let facts = vec![
        PreviewFact::Desired(Presence::Absent),
        PreviewFact::Head {
            repo: None,
            branch: preview(1).branch,
            sha: sha(7),
        },
        PreviewFact::State(PreviewState::Live),
        PreviewFact::Evaluated {
            key: "k".to_owned(),
            closure: closure(),
            meta: Box::new(meta()),
        },
        PreviewFact::Live {
            sha: sha(7),
            closure: closure(),
            meta: Box::new(meta()),
        },
        PreviewFact::Comment(Some(5)),
        PreviewFact::Deployment(Some(6)),
        PreviewFact::Fault(Some(fault.clone())),
        PreviewFact::LastDelivery("d9".to_owned()),
        PreviewFact::Active(active),
    ];
    let returned = store.set_preview(&slug, facts).await.expect("records");
    let by_label = store.approve(&slug, &sha(7), Approval::Label).await;
    by_label.expect("approves");
    for (sha, after) in [(sha(6), 1), (sha(7), 2), (sha(7), 3)] {
        let announced = store.record_announcement(&slug, &sha, after).await;
        announced.expect("records");
    }
    let fixture = fixture.reopened().await;
    let store = &fixture.store;
    let kept = store.preview(&slug).await.expect("reads").expect("kept");
    assert_eq!(
        (&kept.announced_sha, kept.announced_after),
        (&Some(sha(7)), 2),
        "the first announcement of the commit"
    );
    assert_eq!(kept.record.approved_sha, Some(sha(7)));
    assert!(kept.approved_by_label);
    assert_eq!(kept.desired, Presence::Absent);
    assert_eq!(kept.record.wanted_sha, sha(7));
    assert!(kept.record.is_from_fork(), "its repository is gone");
    assert_eq!(kept.record.state, PreviewState::Live);
    assert_eq!(kept.record.live_sha, Some(sha(7)));
    assert_eq!(kept.record.fault, Some(fault));
    assert_eq!(kept.record.last_delivery.as_deref(), Some("d9"));
    assert_eq!(kept.record.last_activity, active);
    assert_eq!(
        (&kept.evaluation.as_deref(), &kept.meta),
        (&Some("k"), &Some(meta()))
    );
    assert_eq!(
        (&kept.live_closure, &kept.live_meta),
        (&Some(closure()), &Some(meta()))
    );
    assert_eq!((kept.comment_id, kept.deployment_id), (Some(5), Some(6)));
    let mut before = kept.clone();
    before.record.approved_sha = None;
    before.approved_by_label = false;
    before.announced_sha = None;
    before.announced_after = 0;
    assert_eq!(returned, before);

    let gone = vec![PreviewFact::NotLive, PreviewFact::Comment(None)];
    let gone = store.set_preview(&slug, gone).await.expect("records");
    assert_eq!(
        (gone.record.live_sha, gone.live_meta, gone.comment_id),
        (None, None, None)
    );
    let reason = Failure::new(Code::ApprovalNeeded, "the label is gone");
    let withdrawn = store.withdraw_approval(&slug, reason.clone()).await;
    let withdrawn = withdrawn.expect("withdraws");
    assert_eq!(withdrawn.record.approved_sha, None);
    assert_eq!(withdrawn.record.fault, Some(reason));
    assert!(!withdrawn.approved_by_label);
    // A commit that is not wanted yet may be approved, but does not replace the approval of the wanted one.
    for (approved, then) in [(8, 8), (7, 7), (8, 7)] {
        store
            .approve(&slug, &sha(approved), Approval::Command)
            .await
            .expect("approves");
        let now = store.preview(&slug).await.expect("reads").expect("kept");
        assert_eq!(now.record.approved_sha, Some(sha(then)));
    }
    // A label does not replace an approval from the host; the host replaces that of a label.
    for (approved, by, by_label) in [
        (7, Approval::Label, false),
        (6, Approval::Label, false),
        (7, Approval::Command, false),
    ] {
        let recorded = store.approve(&slug, &sha(approved), by).await;
        recorded.expect("approves");
        let now = store.preview(&slug).await.expect("reads").expect("kept");
        assert_eq!(now.approved_by_label, by_label);
    }
    let nobody = store
        .approve(&name("nobody"), &sha(1), Approval::Command)
        .await;
    assert!(matches!(nobody, Err(StoreError::PreviewNotFound { .. })));
}

#[tokio::test]
async fn extra_host_of_a_preview_is_no_free_slug() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    claim(store, 1, &["web-7"]).await.expect("claims");
    let mut meta = serde_json::to_value(meta()).expect("json");
    meta["extraHosts"] = serde_json::json!([
        { "prefix": "admin", "routes": [{ "path": "/", "port": 3001 }] }
    ]);
    let evaluated = PreviewFact::Evaluated {
        key: "k".to_owned(),
        closure: closure(),
        meta: Box::new(serde_json::from_value(meta).expect("meta")),
    };
    store
        .set_preview(&name("web-7"), vec![evaluated])
        .await
        .expect("records");
    let other = claim(store, 2, &["admin-web-7", "admin-web-7-x"]).await;
    assert_eq!(other.expect("claims"), "admin-web-7-x");
    let near = claim(store, 3, &["badmin-web-7"]).await;
    assert_eq!(near.expect("claims"), "badmin-web-7");
}

#[tokio::test]
async fn facts_about_a_missing_preview_are_refused() {
    let fixture = Fixture::new(SUBNET);
    let nobody = name("nobody");
    let facts = vec![PreviewFact::Desired(Presence::Absent)];
    let refused = fixture.store.set_preview(&nobody, facts).await;
    assert!(matches!(refused, Err(StoreError::PreviewNotFound { .. })));
}

#[tokio::test]
async fn preview_expires_unless_used_meanwhile() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let slug = name("web-1");
    claim(store, 1, &["web-1"]).await.expect("claims");
    let read = || async { store.preview(&slug).await.expect("reads").expect("kept") };
    let expire = |seen| async move {
        let expired = store.set_preview_if_unused(&seen, vec![PreviewFact::Expired]);
        expired.await.expect("records")
    };

    let seen = read().await;
    let used = PreviewFact::Active(Timestamp::now());
    store.set_preview(&slug, vec![used]).await.expect("records");
    assert_eq!(expire(seen).await, None, "it was used");

    let seen = read().await;
    let pushed = delivery("d", 1, PrAction::Synchronize, 2);
    store.record_delivery(pushed).await.expect("records");
    assert_eq!(expire(seen).await, None, "a push is pending");

    let finished = store.finish_delivery("d", DeliveryOutcome::Done).await;
    assert!(finished.expect("finishes"));
    let hour = Duration::from_secs(3_600);
    let moved = store.advance_running_time(hour).await;
    moved.expect("moves");
    let expired = expire(read().await).await.expect("it was not used");
    assert_eq!(expired.record.state, PreviewState::Expired);
    assert_eq!(expired.desired, Presence::Present);
    let since = expired.active_running.since(RunningTime::default());
    assert!(since >= hour, "its age counts from now on");

    store.delete_preview(&slug).await.expect("forgets");
    assert_eq!(expire(expired).await, None, "it is gone");
}

#[tokio::test]
async fn only_a_pull_request_without_a_configuration_is_deleted_unseen() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let slug = name("web-1");
    claim(store, 1, &["web-1"]).await.expect("claims");
    let wanted = store.preview(&slug).await.expect("reads").expect("there");
    let sha = wanted.record.wanted_sha;
    let other = CommitSha::parse(&"f".repeat(40)).expect("a commit");
    let delete = async |sha| {
        store
            .delete_unseen_preview(&slug, sha)
            .await
            .expect("writes")
    };
    assert!(!delete(&other).await, "another commit is wanted by now");
    let found = store
        .set_preview(&slug, vec![PreviewFact::ConfigFound])
        .await;
    assert!(found.expect("records").config_seen);
    assert!(!delete(&sha).await, "a commit had a configuration");

    claim(store, 2, &["web-2"]).await.expect("claims");
    let slug = name("web-2");
    let deleted = store.delete_unseen_preview(&slug, &sha).await;
    assert!(deleted.expect("writes"));
    assert!(store.preview(&slug).await.expect("reads").is_none());
}

#[tokio::test]
async fn grace_period_counts_from_the_first_drop_until_the_file_returns() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let slug = name("web-1");
    claim(store, 1, &["web-1"]).await.expect("claims");
    let set = async |fact| store.set_preview(&slug, vec![fact]).await.expect("records");
    let dropped = || PreviewFact::Dropped(Failure::new(Code::ConfigMissing, "none"));
    let first = set(dropped()).await;
    assert_eq!(first.record.state, PreviewState::Dropped);
    assert_eq!(
        first.record.fault.map(|fault| fault.code),
        Some(Code::ConfigMissing)
    );
    assert!(first.removal_running.is_some());
    let hour = Duration::from_secs(3_600);
    store.advance_running_time(hour).await.expect("advances");
    assert_eq!(set(dropped()).await.removal_running, first.removal_running);
    assert_eq!(set(PreviewFact::ConfigFound).await.removal_running, None);
    assert!(set(dropped()).await.removal_running > first.removal_running);
}

#[tokio::test]
async fn changed_secrets_are_recorded_until_their_delivery() {
    let fixture = Fixture::new(SUBNET);
    let store = &fixture.store;
    let key = |text| EnvName::parse(text).expect("a name");
    store
        .claim_preview(preview(1), vec![name("web-1")])
        .await
        .expect("claims");
    let both = vec![name("web-1"), name("gone")];
    for secret in ["A", "B"] {
        let added = store.add_stale_secret(both.clone(), &key(secret)).await;
        added.expect("records");
    }
    let names = async || {
        let stale = store.stale_secrets().await.expect("reads");
        let names = stale
            .iter()
            .map(|one| (one.slug.clone(), one.name.to_string()));
        names.collect::<Vec<_>>()
    };
    let own = |secret: &str| (name("web-1"), secret.to_owned());
    assert_eq!(names().await, [own("A"), own("B")]);
    let read = store
        .last_stale_secret(&name("web-1"))
        .await
        .expect("reads");
    // Changed again while the guest's file is written.
    let added = store.add_stale_secret(both, &key("A")).await;
    added.expect("records");
    let forgotten = store.forget_stale_secrets(&name("web-1"), read).await;
    forgotten.expect("records");
    assert_eq!(names().await, [own("A")]);
    store.delete_preview(&name("web-1")).await.expect("deletes");
    assert_eq!(names().await, []);
    assert_eq!(
        store
            .last_stale_secret(&name("web-1"))
            .await
            .expect("reads"),
        0
    );
}
