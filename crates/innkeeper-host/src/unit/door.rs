//! The daemon's side of the door.
//!
//! A guest's first process connects to a socket in a directory that is bound into the guest, and waits for one byte.
//! Before that byte the socket is removed and closed: programs in the guest have no channel to the daemon.

use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;

use innkeeper_model::{GuestName, StorePath};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::config::RunDir;
use super::leader::Leader;
use crate::{FileError, FileErrorExt};

/// The byte that opens the door.
const OPEN: u8 = 1;

/// The byte that opens the door when system call filters follow: their length as u32, little-endian, and their list.
const OPEN_WITH_FILTERS: u8 = 2;

/// Begins the shim's message when filters are not in force. Shims of earlier versions never send it.
const UNFILTERED: char = '\u{1}';

/// Precedes everything else for a guest that has waited without a name. Its name and the path of its init follow, each with a
/// line break.
const NAMED: u8 = 4;

/// The maximum length of the shim's error message, in bytes.
const MESSAGE_LIMIT: u64 = 1000;

/// Precedes the byte if the guest boots a system of its own. The system's path and a line break come between them.
const BOOT_OWN: u8 = 3;

/// Listens on the door's socket. Replaces the socket of an earlier daemon.
pub(super) fn listen(run: &RunDir) -> Result<UnixListener, FileError> {
    let dir = run.door();
    let socket = run.socket();
    remove(&socket)?;
    // The address of a socket has at most 107 bytes; through the descriptor, the path can be longer.
    let held = File::open(&dir).on("open", &dir)?;
    let address = format!("/proc/self/fd/{}/socket", held.as_raw_fd());
    let listener = UnixListener::bind(address).on("listen on", &socket)?;
    // The guest's root is another user here. `accept` authenticates the peer.
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).on("open up", &socket)?;
    Ok(listener)
}

/// Accepts the first connection of the process that `leader` finds.
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
            _ => tracing::warn!(
                ?pid,
                "a process that is not the guest's first one connected to its door"
            ),
        }
    }
}

/// The result of opening a door.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// The process executed another program, or has ended.
    Gone,
    /// It ended without reading all of the reply: it executed nothing.
    Killed,
    /// It could not execute the closure's init; holds its error message.
    Refused(String),
    /// It reported that it could not install the filters, and executed nothing.
    Unfiltered {
        /// Its error message.
        message: String,
        /// The kernel shows that it is so.
        is_proven: bool,
    },
}

/// The daemon's message.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Message<'a> {
    /// The name and the closure of a guest that has waited without them.
    pub(super) named: Option<(&'a GuestName, &'a StorePath)>,
    /// The system of the guest's own to boot.
    pub(super) own: Option<&'a StorePath>,
    /// The system call filters to install.
    pub(super) filters: Option<&'a [u8]>,
}

impl Message<'_> {
    /// Returns the message without its byte that opens the door and the filters, then these.
    fn encode(&self) -> io::Result<[Vec<u8>; 2]> {
        let mut before = Vec::new();
        if let Some((name, closure)) = self.named {
            let init = closure.init();
            let line = |text: &[u8]| [text, b"\n"].concat();
            before.push(NAMED);
            before.extend(line(name.as_str().as_bytes()));
            before.extend(line(init.as_os_str().as_encoded_bytes()));
        }
        if let Some(own) = self.own {
            before.extend([&[BOOT_OWN], own.as_str().as_bytes(), b"\n"].concat());
        }
        let opening = match self.filters {
            None => vec![OPEN],
            Some(list) => {
                let length = u32::try_from(list.len()).map_err(io::Error::other)?;
                [&[OPEN_WITH_FILTERS][..], &length.to_le_bytes(), list].concat()
            }
        };
        Ok([before, opening])
    }
}

/// Sends the message, and waits until the first process has closed its end, which the kernel does when the process executes init.
/// After an error message the process waits until the connection is closed, so that `is_unfiltered` can look at it.
pub(super) async fn open(
    mut connection: UnixStream,
    message: Message<'_>,
    is_unfiltered: impl FnOnce() -> bool,
) -> io::Result<Opened> {
    let [before, opening] = message.encode()?;
    let mut message = String::new();
    let mut was_killed = false;
    let exchange = async {
        connection.write_all(&before).await?;
        connection.write_all(&opening).await?;
        (&mut connection)
            .take(MESSAGE_LIMIT)
            .read_to_string(&mut message)
            .await
    };
    match exchange.await {
        // It was killed while it waited: the supervisor reports that.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
            ) =>
        {
            was_killed = true;
        }
        result => {
            result?;
        }
    }
    Ok(match message.strip_prefix(UNFILTERED) {
        Some(message) => Opened::Unfiltered {
            message: message.to_owned(),
            is_proven: is_unfiltered(),
        },
        None if was_killed && message.is_empty() => Opened::Killed,
        None if message.is_empty() => Opened::Gone,
        None => Opened::Refused(message),
    })
}

/// Removes the socket.
pub(super) fn close(run: &RunDir) -> Result<(), FileError> {
    remove(&run.socket())
}

fn remove(socket: &std::path::Path) -> Result<(), FileError> {
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).on("remove", socket),
        _ => Ok(()),
    }
}

/// The connections of waiting guests.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<HashMap<GuestName, (u32, UnixStream)>>);

impl Waiting {
    /// Stores the connection of a leader.
    pub(super) fn put(&self, guest: &GuestName, leader: u32, connection: UnixStream) {
        self.0.lock().insert(guest.clone(), (leader, connection));
    }

    /// Reports whether this leader is connected.
    pub(super) fn has(&self, guest: &GuestName, leader: u32) -> bool {
        self.0
            .lock()
            .get(guest)
            .is_some_and(|(pid, _)| *pid == leader)
    }

    /// Takes the connection of a leader. Drops one of an earlier leader.
    pub(super) fn take(&self, guest: &GuestName, leader: u32) -> Option<UnixStream> {
        let (pid, connection) = self.0.lock().remove(guest)?;
        (pid == leader).then_some(connection)
    }

    /// Gives the connection of a seat to the guest that takes it.
    pub(super) fn rename(&self, seat: &GuestName, guest: &GuestName) {
        let mut waiting = self.0.lock();
        if let Some(connection) = waiting.remove(seat) {
            waiting.insert(guest.clone(), connection);
        }
    }

    /// Drops the connection of a guest.
    pub(super) fn forget(&self, guest: &GuestName) {
        self.0.lock().remove(guest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn opened(reads: bool) -> Opened {
        let (daemon, mut shim) = UnixStream::pair().expect("a pair");
        let path = "/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-nixos-system";
        let own = StorePath::parse(path).expect("valid");
        let shim = async move {
            if reads {
                let mut message = vec![0; path.len() + 3];
                shim.read_exact(&mut message).await.expect("the reply");
            }
            drop(shim);
        };
        let message = Message {
            own: Some(&own),
            ..Message::default()
        };
        let (opened, ()) = tokio::join!(open(daemon, message, || false), shim);
        opened.expect("no other error")
    }

    #[tokio::test]
    async fn process_that_ends_at_the_door_executes_nothing() {
        assert!(matches!(opened(true).await, Opened::Gone));
        assert!(matches!(opened(false).await, Opened::Killed));
    }
}
