use innkeeper_github::fake::FailureKind;
use innkeeper_model::preview::api::DeliveryState;
use innkeeper_model::preview::{Meta, RepoName};

use super::*;
use crate::fixture::{Harness, branch, live_facts, meta, sha, slug};

/// A live preview of the repository's own branch.
async fn harness() -> Harness {
    let harness = Harness::new().await;
    harness.open_pull(sha('a'));
    harness.permit("alice", "write");
    harness.permit("bob", "read");
    harness.claim().await;
    harness.set_live(sha('a')).await;
    harness
}

/// A preview of a fork whose commit 'a' is live and approved, and whose newer commit 'b' is not.
async fn fork() -> Harness {
    let harness = Box::pin(harness()).await;
    let theirs = RepoName::parse("mallory/web").ok();
    harness.change_pull(|pull| {
        pull.head_repo = theirs.clone();
        pull.head_sha = sha('b');
    });
    let head = |sha| PreviewFact::Head {
        repo: theirs.clone(),
        branch: branch(),
        sha,
    };
    harness.set(vec![head(sha('a'))]).await;
    let approved = innkeeper_store::Approval::Command;
    let (slug, commit) = (slug(), sha('a'));
    let approve = harness.store.approve(&slug, &commit, approved);
    approve.await.expect("recorded");
    harness
        .set(vec![
            head(sha('b')),
            PreviewFact::State(PreviewState::WaitingForApproval),
        ])
        .await;
    harness
}

/// Has a user comment, executes the command, and returns the state of its delivery.
async fn execute(harness: &Harness, author: &str, body: &str) -> DeliveryState {
    let id = format!("{body} by {author}").replace(['/', ' '], "-");
    harness.comment(&id, author, body).await;
    let delivery = harness.next().await;
    let event = delivery.event.as_command().expect("a command");
    let preview = harness.preview().await.expect("exists");
    let commands = &harness.parts.deliveries.commands;
    let ended = commands.execute(&delivery, event, &preview).await;
    if let Some(outcome) = ended.expect("answered") {
        let finished = harness.store.finish_delivery(&id, outcome);
        assert!(finished.await.expect("recorded"));
    }
    let ended = harness.store.delivery(&id).await.expect("read");
    ended.expect("kept").state
}

#[tokio::test]
async fn command_without_permission_has_no_effect() {
    let harness = harness().await;
    let before = harness.preview().await;
    harness.permit("triage", "read");
    harness.permit("odd", "superuser");
    for author in ["bob", "triage", "odd", "stranger", "../../user"] {
        for command in ["stop", "start", "rebuild", "reset-db"] {
            let body = format!("/preview {command}");
            let state = execute(&harness, author, &body).await;
            assert_eq!(state, DeliveryState::Ignored, "{author}: {body}");
        }
    }
    assert_eq!(harness.preview().await, before);
    assert_eq!(harness.reactions(), Vec::<String>::new());
}

#[tokio::test]
async fn unknown_permission_is_queried_again_then_refused() {
    let harness = harness().await;
    harness.comment("c", "alice", "/preview stop").await;
    let commands = harness.parts.deliveries.commands.clone();
    for (status, attempts, is_refused) in [(500, 0, false), (403, 0, false), (403, 3, true)] {
        let kind = FailureKind::Status(status);
        let fail = |world: &mut innkeeper_github::fake::World| {
            world.fail("GET", "/permission", 1, kind.clone());
        };
        harness.github.with(fail);
        let mut delivery = harness.next().await;
        delivery.attempts = attempts;
        let event = delivery.event.as_command().expect("a command");
        let authorized = commands.authorize(&delivery, event).await;
        match authorized {
            Err(_) => assert!(!is_refused, "{status}"),
            Ok(refused) => assert!(is_refused && refused.is_some(), "{status}"),
        }
    }
}

#[tokio::test]
async fn comment_that_github_does_not_show_is_no_command() {
    let harness = harness().await;
    let before = harness.preview().await;
    let commands = harness.parts.deliveries.commands.clone();
    harness.comment("c", "alice", "/preview stop").await;
    let mut delivery = harness.next().await;
    // Without an author's comment, the delivery is a forgery by somebody who has the webhook's secret.
    type Change = fn(&mut innkeeper_github::fake::CommentRecord);
    let changes: [Change; 3] = [
        |comment| "bob".clone_into(&mut comment.author),
        |comment| "/preview start".clone_into(&mut comment.body),
        |comment| comment.issue = 8,
    ];
    let event = delivery.event.as_command().expect("a command").clone();
    for change in changes {
        let original = harness.change_repo(|repo| repo.comments[0].clone());
        harness.change_repo(|repo| change(&mut repo.comments[0]));
        let authorized = commands.authorize(&delivery, &event).await;
        assert!(authorized.expect("answered").is_some());
        harness.change_repo(|repo| repo.comments[0] = original);
    }
    let authorized = commands.authorize(&delivery, &event).await;
    assert_eq!(authorized.expect("answered"), None);
    // It may be too new for GitHub's API.
    harness.change_repo(|repo| repo.comments.clear());
    let authorized = commands.authorize(&delivery, &event).await;
    assert!(authorized.expect_err("retried").may_pass(0));
    delivery.attempts = LAGS;
    let authorized = commands.authorize(&delivery, &event).await;
    assert!(authorized.expect("answered").is_some());
    assert_eq!(harness.preview().await, before);
}

#[tokio::test]
async fn stop_and_start_change_the_record_once() {
    let harness = harness().await;
    let done = DeliveryState::Done;
    assert_eq!(execute(&harness, "alice", "/preview stop").await, done);
    let stopped = harness.record().await;
    assert_eq!(
        (stopped.state, stopped.live_sha),
        (PreviewState::Stopped, None)
    );
    assert_eq!(
        stopped.last_delivery.as_deref(),
        Some("-preview-stop-by-alice")
    );
    assert_eq!(execute(&harness, "alice", "/preview start").await, done);
    assert_eq!(harness.record().await.state, PreviewState::Queued);
    assert_eq!(harness.reactions(), ["+1", "+1"]);

    // A preview that is up stays as it is.
    harness.set(live_facts(sha('a'))).await;
    harness.comment("again", "alice", "/preview start").await;
    let delivery = harness.next().await;
    let event = delivery.event.as_command().expect("a command");
    let preview = harness.preview().await.expect("exists");
    let commands = &harness.parts.deliveries.commands;
    let ended = commands.execute(&delivery, event, &preview).await;
    assert_eq!(ended.expect("executed"), None);
    assert_eq!(harness.record().await.state, PreviewState::Live);
}

#[tokio::test]
async fn command_is_for_every_preview_of_the_pull_request() {
    let harness = harness().await;
    let api = harness
        .claim_additional("apps/api/preview.nix", "web-7-api")
        .await;
    let set = async |facts| harness.store.set_preview(&api, facts).await;
    set(live_facts(sha('a'))).await.expect("recorded");
    let states = async || {
        let api = harness.store.preview(&api).await.expect("read");
        let api = api.expect("exists").record;
        (harness.record().await.state, api.state)
    };
    let (queued, stopped) = (PreviewState::Queued, PreviewState::Stopped);
    execute(&harness, "alice", "/preview stop").await;
    assert_eq!(states().await, (stopped, stopped));
    execute(&harness, "alice", "/preview start").await;
    assert_eq!(states().await, (queued, queued));

    // It applies to one of them only.
    let without = PreviewFact::Live {
        sha: sha('a'),
        closure: crate::fixture::closure(),
        meta: Box::new(Meta {
            database: DatabaseMode::Container,
            ..meta()
        }),
    };
    harness.set(live_facts(sha('a'))).await;
    harness.set(vec![without]).await;
    set(live_facts(sha('a'))).await.expect("recorded");
    let state = execute(&harness, "alice", "/preview reset-db").await;
    assert_eq!(state, DeliveryState::Done);
    assert_eq!(states().await, (PreviewState::Live, queued));
    let reset = harness.store.preview(&api).await.expect("read");
    assert!(reset.expect("exists").reset_database);
    assert_eq!(harness.reactions(), ["+1", "+1", "+1"]);
}

#[tokio::test]
async fn database_is_reset_only_if_there_is_one() {
    let harness = harness().await;
    let state = execute(&harness, "alice", "/preview reset-db").await;
    assert_eq!(state, DeliveryState::Done);
    let preview = harness.preview().await.expect("exists");
    assert!(preview.reset_database && preview.dirty);
    assert_eq!(preview.record.state, PreviewState::Queued);

    let mut without = meta();
    without.database = DatabaseMode::Container;
    let live = PreviewFact::Live {
        sha: sha('a'),
        closure: crate::fixture::closure(),
        meta: Box::new(without),
    };
    harness
        .set(vec![live, PreviewFact::ResetDatabase(false)])
        .await;
    harness.permit("carol", "admin");
    let state = execute(&harness, "carol", "/preview reset-db").await;
    assert_eq!(state, DeliveryState::Ignored);
    assert!(!harness.preview().await.expect("exists").reset_database);
    assert_eq!(harness.reactions(), ["+1", "confused"]);
}

#[tokio::test]
async fn commands_on_forks_use_the_approved_commit() {
    for command in ["/preview rebuild", "/preview reset-db"] {
        let harness = fork().await;
        assert_eq!(
            execute(&harness, "alice", command).await,
            DeliveryState::Done
        );
        let preview = harness.preview().await.expect("exists");
        let record = &preview.record;
        assert_eq!(record.approved_sha, Some(sha('a')), "{command}");
        assert_eq!(record.live_sha, Some(sha('a')), "{command}");
        assert_eq!(record.state, PreviewState::WaitingForApproval, "{command}");
        assert!(preview.dirty, "{command}");
    }
    // The approved commit is not up: it becomes the wanted one.
    let harness = fork().await;
    execute(&harness, "alice", "/preview stop").await;
    execute(&harness, "alice", "/preview start").await;
    let record = harness.record().await;
    assert_eq!(
        (record.wanted_sha, record.approved_sha, record.state),
        (sha('a'), Some(sha('a')), PreviewState::Queued)
    );
    assert!(record.head_repo.is_some());
}

#[tokio::test]
async fn commands_on_forks_approve_nothing() {
    let harness = fork().await;
    let reason = Failure::new(Code::ApprovalNeeded, "withdrawn");
    let withdrawn = harness.store.withdraw_approval(&slug(), reason).await;
    withdrawn.expect("recorded");
    harness
        .set(vec![PreviewFact::State(PreviewState::WaitingForApproval)])
        .await;
    for command in ["start", "rebuild"] {
        let body = format!("/preview {command}");
        let state = execute(&harness, "alice", &body).await;
        assert_eq!(state, DeliveryState::Ignored, "{body}");
    }
    let record = harness.record().await;
    assert_eq!(
        (record.approved_sha, record.state),
        (None, PreviewState::WaitingForApproval)
    );
    assert_eq!(harness.reactions(), ["confused", "confused"]);
}

#[tokio::test]
async fn approval_names_the_newest_commit() {
    let harness = fork().await;
    let approve = |digit| format!("/preview approve {}", sha(digit));
    let state = execute(&harness, "alice", &approve('c')).await;
    assert_eq!(state, DeliveryState::Ignored);
    assert_eq!(harness.record().await.approved_sha, Some(sha('a')));
    let state = execute(&harness, "bob", &approve('b')).await;
    assert_eq!(state, DeliveryState::Ignored);
    assert_eq!(harness.record().await.approved_sha, Some(sha('a')));

    let state = execute(&harness, "alice", &approve('b')).await;
    assert_eq!(state, DeliveryState::Done);
    let record = harness.record().await;
    assert_eq!(
        (record.approved_sha, record.wanted_sha, record.state),
        (Some(sha('b')), sha('b'), PreviewState::Queued)
    );
    // Its push is not delivered yet.
    harness.change_pull(|pull| pull.head_sha = sha('d'));
    let state = execute(&harness, "alice", &approve('d')).await;
    assert_eq!(state, DeliveryState::Done);
    let record = harness.record().await;
    assert!(record.is_from_fork());
    assert_eq!(
        (record.approved_sha, record.wanted_sha),
        (Some(sha('d')), sha('d'))
    );
    assert_eq!(harness.reactions(), ["confused", "+1", "+1"]);
}

#[tokio::test]
async fn start_requests_a_preview_of_an_open_pull_request() {
    let harness = Harness::new().await;
    harness.open_pull(sha('a'));
    harness.change_pull(|pull| pull.draft = true);
    harness.permit("alice", "write");
    let commands = harness.parts.deliveries.commands.clone();
    let act = async |id: &str, author: &str, body: &str| {
        harness.comment(id, author, body).await;
        let delivery = harness.next().await;
        let event = delivery.event.as_command().expect("a command");
        let ended = commands.execute_without_preview(&delivery, event).await;
        let ended = ended.expect("answered");
        if let Some(outcome) = ended.clone() {
            harness
                .store
                .finish_delivery(id, outcome)
                .await
                .expect("recorded");
        }
        ended.is_none()
    };
    assert!(!act("a", "mallory", "/preview start").await);
    assert!(!act("b", "alice", "/preview rebuild").await);
    assert_eq!(harness.preview().await, None);
    assert!(act("c", "alice", "/preview start").await);
    let preview = harness.preview().await.expect("recorded");
    assert_eq!(preview.request, Some(PreviewRequest::Command));
    assert_eq!(preview.record.wanted_sha, sha('a'));
    assert_eq!(harness.reactions(), ["confused", "+1"]);
}

#[tokio::test]
async fn lasting_failure_of_a_reaction_does_not_prevent_the_command() {
    let harness = harness().await;
    let fail = |status, times| {
        harness.github.with(|world| {
            world.fail("POST", "/reactions", times, FailureKind::Status(status));
        });
    };
    fail(403, 1);
    let state = execute(&harness, "alice", "/preview stop").await;
    assert_eq!(state, DeliveryState::Done);
    assert_eq!(harness.reactions(), Vec::<String>::new());

    fail(502, 1);
    harness.comment("start", "alice", "/preview start").await;
    let commands = harness.parts.deliveries.commands.clone();
    let attempt = async |attempts| {
        let mut delivery = harness.next().await;
        delivery.attempts = attempts;
        let event = delivery.event.as_command().expect("a command");
        let preview = harness.preview().await.expect("exists");
        commands.execute(&delivery, event, &preview).await
    };
    attempt(0).await.expect_err("GitHub may answer again");
    assert_eq!(harness.record().await.state, PreviewState::Stopped);
    fail(502, 1);
    assert_eq!(attempt(REACTIONS).await.expect("executed"), None);
    assert_eq!(harness.record().await.state, PreviewState::Queued);
}
