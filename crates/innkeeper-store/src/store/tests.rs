//! Durability and group commit, observed on the thread and in the write-ahead log.

use std::path::Path;
use std::sync::mpsc;
use std::task::Poll;

use innkeeper_model::preview::PullRequestEvent;
use innkeeper_model::{
    ClosureSource, Cpus, DesiredState, EventKind, GuestKind, GuestName, Limits, MemorySize,
    UserIdCount, Verb,
};

use super::*;
use crate::{Approval, NewDelivery, NewGuest, NewPreview, Presence, PreviewFact, Receipt};

pub(super) fn open_database(directory: &Path) -> Database {
    Database::open(&directory.join("innkeeper.db")).expect("opens")
}

#[tokio::test]
async fn intents_are_durable_and_facts_may_wait() {
    async fn durability(store: &Store) -> Durability {
        let read = store.run("look", |database| Ok(database.durability));
        read.await.expect("answers")
    }

    let directory = tempfile::tempdir().expect("directory");
    let range = "10.100.0.0/16".parse().expect("range");
    let store = Store::open(&directory.path().join("innkeeper.db"), range).expect("opens");
    let web: GuestName = "web".parse().expect("name");
    let new = NewGuest {
        name: web.clone(),
        kind: GuestKind::Agent,
        source: ClosureSource::Flake("/srv/fleet".to_owned().try_into().expect("flake")),
        closure: None,
        limits: Limits {
            memory: MemorySize::MIN,
            cpus: Cpus::from_percent(100),
            tasks: 10,
            user_ids: UserIdCount::default(),
            nesting: false,
        },
        origin: None,
        declared: false,
        idle_policy: None,
    };

    // Each intent comes after a fact, so that the level is not left over from the intent before.
    let fact = || async {
        let kind = EventKind::Finished;
        store.append_event(None, None, kind, |event| drop(event.expect("event")));
        assert_eq!(durability(&store).await, Durability::Soon);
    };
    fact().await;
    store.create_guest(new, "uid:0").await.expect("create");
    assert_eq!(durability(&store).await, Durability::Now);
    fact().await;
    let (desired, verb) = (DesiredState::Absent, Verb::Destroy);
    store
        .begin_change(&web, desired, verb, "uid:0")
        .await
        .expect("records");
    assert_eq!(durability(&store).await, Durability::Now);
    fact().await;
    store
        .set_desired_state(&web, desired)
        .await
        .expect("records");
    assert_eq!(durability(&store).await, Durability::Now);
    fact().await;
    store
        .begin_operation(Verb::Build, "uid:0")
        .await
        .expect("operation");
    assert_eq!(durability(&store).await, Durability::Now);
    fact().await;
    store.reserve_legacy_slots(&[]).await.expect("import");
    assert_eq!(durability(&store).await, Durability::Now);
    fact().await;
    store.delete_guest(&web, None).await.expect("forget");
    assert_eq!(durability(&store).await, Durability::Now);
    // The first delivery triggers a pruning, which is a fact.
    store
        .record_delivery(delivery("first"))
        .await
        .expect("delivery");
    fact().await;
    store
        .record_delivery(delivery("d"))
        .await
        .expect("delivery");
    assert_eq!(durability(&store).await, Durability::Now);
    fact().await;
    store.replay_delivery("d").await.expect("replay");
    assert_eq!(durability(&store).await, Durability::Now);
    fact().await;
    let preview = NewPreview::of(&pull_request_event("e"));
    store
        .claim_preview(preview, vec![web.clone()])
        .await
        .expect("claim");
    assert_eq!(durability(&store).await, Durability::Now);
    fact().await;
    let absent = vec![PreviewFact::Desired(Presence::Absent)];
    store.set_preview(&web, absent).await.expect("records");
    assert_eq!(durability(&store).await, Durability::Now);
    fact().await;
    let approved = pull_request_event("e").head_sha;
    store
        .approve(&web, &approved, Approval::Label)
        .await
        .expect("approve");
    assert_eq!(durability(&store).await, Durability::Now);
    fact().await;
    store.delete_preview(&web).await.expect("forget");
    assert_eq!(durability(&store).await, Durability::Now);
}

pub(super) fn delivery(id: &str) -> NewDelivery {
    NewDelivery {
        event: pull_request_event(id).into(),
        received_at: jiff::Timestamp::UNIX_EPOCH,
        slugs: Vec::new(),
    }
}

pub(super) fn pull_request_event(id: &str) -> PullRequestEvent {
    let event = serde_json::json!({
        "delivery": id,
        "action": "opened",
        "pull_request": { "repo": "octo/web", "number": 7 },
        "head_repo": "octo/web",
        "head_sha": "0123456789abcdef0123456789abcdef01234567",
        "head_branch": "topic",
        "base_branch": "main",
        "is_fork": false,
        "author": "alice",
        "sender": "alice",
    });
    serde_json::from_value(event).expect("event")
}

/// Counts the transactions in a write-ahead log (SQLite, "WAL File Format"): the frame that ends one has the database's
/// size in its header. Frames with another salt are older than the log's last restart.
fn transactions(wal: &Path) -> usize {
    let bytes = std::fs::read(wal).expect("log");
    let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
    let frame = 24 + usize::try_from(word(8)).expect("page size");
    let mut frames = (32..bytes.len()).step_by(frame);
    let current = |at: usize| bytes[at + 8..at + 16] == bytes[16..24];
    frames
        .by_ref()
        .filter(|at| current(*at) && word(at + 4) != 0)
        .count()
}

#[tokio::test]
async fn waiting_deliveries_share_one_transaction() {
    const WAITING: usize = 100;
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("innkeeper.db");
    let range = "10.100.0.0/16".parse().expect("range");
    let store = Store::open(&path, range).expect("opens");
    let wal = directory.path().join("innkeeper.db-wal");
    // The first delivery triggers a pruning; later ones do not.
    store
        .record_delivery(delivery("first"))
        .await
        .expect("records");
    let before = transactions(&wal);

    // The thread is blocked while callers queue up, with another request between them.
    let (release, held) = mpsc::channel::<()>();
    let hold = store.run("wait", move |_| {
        held.recv().expect("is released");
        Ok(())
    });
    let record = |n: usize| store.record_delivery(delivery(&format!("d{n}")));
    let release = async { release.send(()).expect("waits") };
    let (held, one, seq, two, ()) = tokio::join!(
        hold,
        all((0..WAITING).map(record)),
        store.last_event_seq(),
        all((WAITING..2 * WAITING).map(record)),
        release,
    );
    assert!(held.is_ok() && seq.is_ok());
    assert_eq!(one + two, 2 * WAITING);
    assert_eq!(transactions(&wal) - before, 1);
}

/// Polls all futures before the first has a result, and counts the recorded deliveries.
async fn all<F>(futures: impl Iterator<Item = F>) -> usize
where
    F: Future<Output = Result<Receipt, StoreError>>,
{
    let mut waiting: Vec<_> = futures.map(Box::pin).collect();
    let mut recorded = 0;
    std::future::poll_fn(|context| {
        waiting.retain_mut(|future| match future.as_mut().poll(context) {
            Poll::Pending => true,
            Poll::Ready(result) => {
                recorded += usize::from(matches!(result, Ok(Receipt::New { .. })));
                false
            }
        });
        if waiting.is_empty() {
            Poll::Ready(recorded)
        } else {
            Poll::Pending
        }
    })
    .await
}
