//! The manager's side of the door.
//!
//! A guest's first process connects to a socket in a directory that is bound into the guest, and waits for
//! one byte. After that byte the socket is gone and nobody listens: nothing that runs in a guest can talk to
//! the manager this way.

use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use innkeeper_model::GuestName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::config::RunDir;
use super::leader::Leader;
use crate::{FileError, FileErrorExt};

/// The most of the shim's complaint that is read.
const COMPLAINT_LIMIT: u64 = 1000;

/// Listens where the guest's first process knocks. A socket of an earlier daemon is replaced.
pub(super) fn listen(run: &RunDir) -> Result<UnixListener, FileError> {
    let dir = run.door();
    let socket = run.socket();
    remove(&socket)?;
    // The address of a socket holds 107 bytes at most; through the descriptor, any directory will do.
    let held = File::open(&dir).on("open", &dir)?;
    let address = format!("/proc/self/fd/{}/socket", held.as_raw_fd());
    let listener = UnixListener::bind(address).on("listen on", &socket)?;
    // The guest's root is somebody else here. Whoever connects is looked at before it is believed.
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).on("open up", &socket)?;
    Ok(listener)
}

/// Takes the first connection that comes from the process that `leader` finds.
pub(super) async fn accept(
    listener: &UnixListener,
    leader: impl Fn() -> Option<Leader> + Send + Sync,
) -> io::Result<(UnixStream, Leader)> {
    loop {
        let (connection, _) = listener.accept().await?;
        let pid = connection.peer_cred()?.pid();
        match leader() {
            Some(leader) if pid == i32::try_from(leader.pid).ok() => {
                return Ok((connection, leader));
            }
            _ => tracing::warn!(?pid, "a stranger knocked at a guest's door"),
        }
    }
}

/// How the opening of a door ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// The process is something else now, or has ended.
    Gone,
    /// It could not become the closure's init, and says why.
    Refused(String),
}

/// Sends the byte and waits until the first process has closed its end, which the kernel does when the
/// process executes init.
pub(super) async fn open(mut connection: UnixStream) -> io::Result<Opened> {
    let mut complaint = String::new();
    let talk = async {
        connection.write_all(&[1]).await?;
        (&mut connection)
            .take(COMPLAINT_LIMIT)
            .read_to_string(&mut complaint)
            .await
    };
    match talk.await {
        // It was killed while it waited: the supervisor sees that.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
            ) => {}
        result => {
            result?;
        }
    }
    Ok(if complaint.is_empty() {
        Opened::Gone
    } else {
        Opened::Refused(complaint)
    })
}

/// Takes away the socket.
pub(super) fn close(run: &RunDir) -> Result<(), FileError> {
    remove(&run.socket())
}

fn remove(socket: &std::path::Path) -> Result<(), FileError> {
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).on("remove", socket),
        _ => Ok(()),
    }
}

/// The connections of guests that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<HashMap<GuestName, (u32, UnixStream)>>);

impl Waiting {
    fn map(&self) -> MutexGuard<'_, HashMap<GuestName, (u32, UnixStream)>> {
        // Nothing panics while it is held, and the map is whole between any two operations.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the connection of a leader.
    pub(super) fn put(&self, guest: &GuestName, leader: u32, connection: UnixStream) {
        self.map().insert(guest.clone(), (leader, connection));
    }

    /// Whether this leader is connected.
    pub(super) fn has(&self, guest: &GuestName, leader: u32) -> bool {
        self.map().get(guest).is_some_and(|(pid, _)| *pid == leader)
    }

    /// Takes the connection of a leader away. One of an earlier leader is dropped.
    pub(super) fn take(&self, guest: &GuestName, leader: u32) -> Option<UnixStream> {
        let (pid, connection) = self.map().remove(guest)?;
        (pid == leader).then_some(connection)
    }

    /// Drops whatever is there.
    pub(super) fn forget(&self, guest: &GuestName) {
        self.map().remove(guest);
    }
}
