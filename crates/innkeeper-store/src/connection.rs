//! The one thread that owns the connection, and the handle to that thread.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

use innkeeper_model::SlotRange;
use tokio::sync::oneshot;

use crate::database::Database;
use crate::deliveries::{self, Recording};
use crate::error::{QueryError, StoreError};

/// How many deliveries are recorded in one transaction at most, so that other work does not wait for long.
const GROUP: usize = 512;

/// A handle to the database. Clones are handles to the same one; it closes when the last one goes or
/// with [`Self::close`], after which every method answers [`StoreError::Closed`].
#[derive(Clone, Debug)]
pub struct Store {
    mailbox: mpsc::Sender<Message>,
}

type Job = Box<dyn FnOnce(&mut Database) + Send>;

enum Message {
    Work(Job),
    Record(Recording),
    Close(oneshot::Sender<Result<(), StoreError>>),
}

impl Store {
    /// Opens or creates the database at `path`, whose directory must exist, looks whether it is sound, and
    /// brings it to this version. Blocks; meant for the start of the daemon.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Foreign`] and [`StoreError::TooNew`] when the file is none
    /// that we can work with; what it holds is not changed. [`StoreError::SubnetChanged`] when guests
    /// would get other addresses than they have. [`StoreError::DiskFull`],
    /// [`StoreError::PermissionDenied`], [`StoreError::Locked`] and [`StoreError::Failed`] when the file
    /// cannot be read or written.
    pub fn open(path: &Path, range: SlotRange) -> Result<Self, StoreError> {
        let database = Database::open(path, range)?;
        let (mailbox, messages) = mpsc::channel();
        thread::Builder::new()
            .name("innkeeper-store".to_owned())
            .spawn(move || serve(database, &messages))
            .map_err(|error| StoreError::from_io("start its thread", path, error))?;
        Ok(Self { mailbox })
    }

    /// Waits for all work that was sent before, writes the log back into the file and closes it.
    ///
    /// # Errors
    /// What SQLite says. The file is closed all the same, and nothing is lost: the log is read at the
    /// next start. [`StoreError::Closed`] when another handle closed it.
    pub async fn close(self) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        self.mailbox
            .send(Message::Close(answer))
            .map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// Has the thread do `work` and waits for the answer. `action` completes the sentence "cannot …".
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce(&mut Database) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.send(action, work, |result| {
            // Nobody waits any more when the caller was cancelled; the work stands all the same.
            drop(answer.send(result));
        });
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// The same without waiting: the thread tells the result, unless it has ended.
    pub(crate) fn send<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&mut Database) -> Result<T, QueryError> + Send + 'static,
        told: impl FnOnce(Result<T, StoreError>) + Send + 'static,
    ) {
        let job: Job = Box::new(move |database| {
            told(work(database).map_err(|error| error.explain(action, &database.path)));
        });
        // Without a thread, the job goes, and with it whatever waits for its answer.
        drop(self.mailbox.send(Message::Work(job)));
    }

    /// Has the thread record deliveries, together with those of other callers that wait for it.
    pub(crate) fn send_recording(&self, recording: Recording) -> Result<(), StoreError> {
        self.mailbox
            .send(Message::Record(recording))
            .map_err(|_| StoreError::Closed)
    }
}

/// The thread: works until the last handle is gone or somebody asks it to close.
fn serve(mut database: Database, messages: &mpsc::Receiver<Message>) {
    let mut passed_over = VecDeque::new();
    loop {
        let due_in = database.clock.due_in();
        if due_in.is_zero() {
            database.record_running_time();
        }
        let message = match passed_over.pop_front() {
            Some(message) => message,
            None => match messages.recv_timeout(due_in) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
            },
        };
        match message {
            Message::Work(job) => job(&mut database),
            Message::Record(first) => {
                let group = gather(first, messages, &mut passed_over);
                deliveries::record_group(&mut database, group);
            }
            Message::Close(answer) => {
                drop(answer.send(database.close()));
                return;
            }
        }
    }
    if let Err(error) = database.close() {
        tracing::warn!(%error, "the database was not closed cleanly");
    }
}

/// Takes the deliveries that wait, so that they reach the disk together. What else waits is passed over and
/// done next: nobody can tell, since whoever sent a delivery before it had its answer sent it in no order.
fn gather(
    first: Recording,
    messages: &mpsc::Receiver<Message>,
    passed_over: &mut VecDeque<Message>,
) -> Vec<Recording> {
    let mut deliveries = first.len();
    let mut group = vec![first];
    while deliveries < GROUP
        && let Ok(message) = messages.try_recv()
    {
        match message {
            Message::Record(recording) => {
                deliveries += recording.len();
                group.push(recording);
            }
            other => passed_over.push_back(other),
        }
    }
    group
}

#[cfg(test)]
mod tests {
    use innkeeper_model::{
        ClosureSource, Cpus, DesiredState, EventKind, GuestKind, GuestName, Limits, MemorySize,
        Verb,
    };

    use std::task::Poll;

    use super::*;
    use crate::database::Durability;
    use crate::{Approval, NewDelivery, NewGuest, NewPreview, Presence, PreviewFact, Receipt};

    #[tokio::test]
    async fn intents_reach_the_disk_and_facts_may_wait() {
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
            },
            origin: None,
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
            .expect("want");
        assert_eq!(durability(&store).await, Durability::Now);
        fact().await;
        store.set_desired_state(&web, desired).await.expect("want");
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
        // The first one has old ones looked for, which is a fact.
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
        let preview = NewPreview::of(&delivery("e").event);
        store
            .claim_preview(preview, vec![web.clone()])
            .await
            .expect("claim");
        assert_eq!(durability(&store).await, Durability::Now);
        fact().await;
        let absent = vec![PreviewFact::Desired(Presence::Absent)];
        store.set_preview(&web, absent).await.expect("want");
        assert_eq!(durability(&store).await, Durability::Now);
        fact().await;
        let approved = delivery("e").event.head_sha;
        store
            .approve(&web, &approved, Approval::Label)
            .await
            .expect("approve");
        assert_eq!(durability(&store).await, Durability::Now);
        fact().await;
        store.delete_preview(&web).await.expect("forget");
        assert_eq!(durability(&store).await, Durability::Now);
    }

    fn delivery(id: &str) -> NewDelivery {
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
        NewDelivery {
            event: serde_json::from_value(event).expect("event"),
            received_at: jiff::Timestamp::UNIX_EPOCH,
            slugs: Vec::new(),
        }
    }

    /// How many transactions stand in a write-ahead log (SQLite, "WAL File Format"): a frame that ends one
    /// has the database's size in its header. Frames with another salt are left from before the log's last restart.
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
    async fn deliveries_that_wait_share_a_transaction_and_pass_over_other_work() {
        const WAITING: usize = 100;
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("innkeeper.db");
        let range = "10.100.0.0/16".parse().expect("range");
        let store = Store::open(&path, range).expect("opens");
        let wal = directory.path().join("innkeeper.db-wal");
        // Old deliveries are looked for once, at the first one.
        store
            .record_delivery(delivery("first"))
            .await
            .expect("records");
        let before = transactions(&wal);

        // The thread is held up while callers line up, and somebody else among them.
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

    /// Polls all of them before the first has an answer, and counts those that were recorded.
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
}
