//! The thread that owns the database, and the messages that it serves one after the other.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

use tokio::sync::oneshot;

use crate::database::Database;
use crate::error::StoreError;

/// The maximum number of rows that share a transaction, so that other work does not wait for long.
const MAX_GROUP: usize = 512;

/// A unit of work for the thread. It must report its own result.
pub(crate) type Job = Box<dyn FnOnce(&mut Database) + Send>;

/// A message to the thread.
pub(crate) enum Message<G> {
    /// Runs alone.
    Run(Job),
    /// Shares a transaction with other such work that is waiting.
    Group(G),
    /// Closes the file, reports the result and ends the thread.
    Close(oneshot::Sender<Result<(), StoreError>>),
}

/// Work that shares a transaction with work of the same kind, so that one sync of the disk serves many callers.
pub(crate) trait GroupCommit: Send + Sized + 'static {
    /// Returns the number of rows that it adds.
    fn rows(&self) -> usize;

    /// Commits a group and sends each caller its result.
    fn commit(group: Vec<Self>, database: &mut Database);
}

/// Starts the thread. It ends on [`Message::Close`], or when all senders are gone.
pub(crate) fn spawn<G: GroupCommit>(database: Database) -> io::Result<mpsc::Sender<Message<G>>> {
    let (sender, messages) = mpsc::channel();
    thread::Builder::new()
        .name("innkeeper-store".to_owned())
        .spawn(move || serve(database, &messages))?;
    Ok(sender)
}

fn serve<G: GroupCommit>(mut database: Database, messages: &mpsc::Receiver<Message<G>>) {
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
            Message::Run(job) => job(&mut database),
            Message::Group(first) => {
                let group = gather(first, messages, &mut passed_over);
                G::commit(group, &mut database);
            }
            Message::Close(reply) => {
                drop(reply.send(database.close()));
                return;
            }
        }
    }
    if let Err(error) = database.close() {
        tracing::warn!(%error, "the database was not closed cleanly");
    }
}

/// Collects the work that can join the group of `first`. Other waiting messages are passed over and served next. No
/// caller notices: one that depends on work of the group waits for its result before it sends more.
fn gather<G: GroupCommit>(
    first: G,
    messages: &mpsc::Receiver<Message<G>>,
    passed_over: &mut VecDeque<Message<G>>,
) -> Vec<G> {
    let mut rows = first.rows();
    let mut group = vec![first];
    while rows < MAX_GROUP
        && let Ok(message) = messages.try_recv()
    {
        match message {
            Message::Group(work) => {
                rows += work.rows();
                group.push(work);
            }
            other => passed_over.push_back(other),
        }
    }
    group
}
