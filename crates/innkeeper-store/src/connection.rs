//! The one thread that owns the connection, and the handle to that thread.

use std::path::Path;
use std::sync::mpsc;
use std::thread;

use innkeeper_model::SlotRange;
use tokio::sync::oneshot;

use crate::database::Database;
use crate::error::{QueryError, StoreError};

/// A handle to the database. Clones are handles to the same one; it closes when the last one goes or
/// with [`Self::close`], after which every method answers [`StoreError::Closed`].
#[derive(Clone, Debug)]
pub struct Store {
    mailbox: mpsc::Sender<Message>,
}

type Job = Box<dyn FnOnce(&mut Database) + Send>;

enum Message {
    Work(Job),
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
        let job: Job = Box::new(move |database| {
            let result = work(database).map_err(|error| error.explain(action, &database.path));
            // Nobody waits any more when the caller was cancelled; the work stands all the same.
            drop(answer.send(result));
        });
        self.mailbox
            .send(Message::Work(job))
            .map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }
}

/// The thread: works until the last handle is gone or somebody asks it to close.
fn serve(mut database: Database, messages: &mpsc::Receiver<Message>) {
    for message in messages {
        match message {
            Message::Work(job) => job(&mut database),
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

#[cfg(test)]
mod tests {
    use innkeeper_model::{
        ClosureSource, Cpus, EventKind, GuestKind, GuestName, Limits, MemorySize, Verb, Want,
    };

    use super::*;
    use crate::NewGuest;
    use crate::database::Durability;

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
        };

        // Each intent comes after a fact, so that the level is not left over from the intent before.
        let fact = || async {
            let kind = EventKind::Finished;
            store.append_event(None, None, kind).await.expect("event");
            assert_eq!(durability(&store).await, Durability::Soon);
        };
        fact().await;
        store.create_guest(new, "uid:0").await.expect("create");
        assert_eq!(durability(&store).await, Durability::Now);
        fact().await;
        let (want, verb) = (Want::Absent, Verb::Destroy);
        store
            .set_want(&web, want, verb, "uid:0")
            .await
            .expect("want");
        assert_eq!(durability(&store).await, Durability::Now);
        fact().await;
        store.change_want(&web, want).await.expect("want");
        assert_eq!(durability(&store).await, Durability::Now);
        fact().await;
        store
            .begin_operation(Verb::Build, "uid:0")
            .await
            .expect("operation");
        assert_eq!(durability(&store).await, Durability::Now);
        fact().await;
        store.import_legacy(&[]).await.expect("import");
        assert_eq!(durability(&store).await, Durability::Now);
        fact().await;
        store.forget_guest(&web, None).await.expect("forget");
        assert_eq!(durability(&store).await, Durability::Now);
    }
}
