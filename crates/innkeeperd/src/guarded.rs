//! Listening Unix sockets for one program: access control beyond the file permissions, and a limit of connections.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use innkeeper_host::FileError;
use nix::unistd::{Gid, geteuid};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::{SocketAddr, UCred};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{info, warn};

use crate::socket;

/// The purpose of a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Purpose {
    /// The program that may use it, for the log.
    pub(crate) program: &'static str,
    /// The maximum number of concurrent connections; further ones wait. A compromised program must not exhaust the daemon's
    /// file descriptors.
    pub(crate) connections: usize,
}

/// The socket of one program. Besides the file permissions, it checks that the client is root or runs as the program's group
/// itself: a member of the group is not the program.
pub(crate) struct Listener {
    socket: UnixListener,
    purpose: Purpose,
    allowed: AllowedClients,
    slots: Arc<Semaphore>,
}

impl Listener {
    /// Listens on the socket at `path`. The caller must hold the state directory's lock.
    ///
    /// # Errors
    /// When the socket cannot be created.
    pub(crate) fn bind(path: &Path, group: &str, purpose: Purpose) -> Result<Self, FileError> {
        let id = socket::group_id(group);
        if id.is_none() {
            info!(
                group,
                socket = %path.display(),
                "the group of {} does not exist; only root can use its socket",
                purpose.program
            );
        }
        Ok(Self {
            socket: socket::bind(path, id)?,
            purpose,
            allowed: AllowedClients {
                user: geteuid().as_raw(),
                group: id.map(Gid::as_raw),
            },
            slots: Arc::new(Semaphore::new(purpose.connections)),
        })
    }
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // The semaphore is never closed, so this cannot fail.
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok();
        loop {
            // axum retries while no file descriptor is left.
            let (stream, address) = axum::serve::Listener::accept(&mut self.socket).await;
            match stream.peer_cred() {
                Ok(peer) if self.allowed.includes(&peer) => {
                    let connection = Connection {
                        stream,
                        _slot: slot,
                    };
                    return (connection, address);
                }
                Ok(peer) => warn!(
                    uid = peer.uid(),
                    gid = peer.gid(),
                    "rejected a connection: the client is not {}",
                    self.purpose.program
                ),
                Err(error) => {
                    warn!(%error, "cannot determine whether a client is {}", self.purpose.program);
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.socket.local_addr()
    }
}

/// A connection, which holds its slot until it is dropped.
pub(crate) struct Connection {
    stream: UnixStream,
    _slot: Option<OwnedSemaphorePermit>,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// The clients that may use the socket.
#[derive(Clone, Copy, Debug)]
struct AllowedClients {
    /// The daemon's own user, which has the daemon's rights anyway.
    user: u32,
    /// The program's group, if it exists.
    group: Option<u32>,
}

impl AllowedClients {
    fn includes(self, peer: &UCred) -> bool {
        self.matches(peer.uid(), peer.gid())
    }

    fn matches(self, user: u32, group: u32) -> bool {
        user == 0 || user == self.user || self.group == Some(group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_group_and_root_are_allowed() {
        let allowed = AllowedClients {
            user: 7,
            group: Some(5),
        };
        assert!(allowed.matches(0, 9) && allowed.matches(7, 9) && allowed.matches(1, 5));
        assert!(!allowed.matches(1, 9));
        assert!(
            !allowed.matches(5, 7),
            "user and group are not interchangeable"
        );
        let alone = AllowedClients {
            user: 0,
            group: None,
        };
        assert!(alone.matches(0, 0));
        assert!(!alone.matches(1, 0), "root's group is not root");
    }
}
