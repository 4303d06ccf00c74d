//! Who may connect to the intake, and how often.

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

/// How many connections there may be at the same time; more wait. The webhook keeps two. If strangers took it
/// over, they must not use up the daemon's file descriptors.
const CONNECTIONS: usize = 16;

/// The intake's socket. Of those whom its permissions let through, it takes programs that run as the group,
/// and root: a person who belongs to the group, or a program that was handed a connection, is not the webhook.
pub(crate) struct Listener {
    socket: UnixListener,
    allowed: Allowed,
    places: Arc<Semaphore>,
}

impl Listener {
    /// Listens on the socket at `path`. The caller holds the state directory's lock.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub(crate) fn bind(path: &Path, group: &str) -> Result<Self, FileError> {
        let id = socket::group_id(group);
        if id.is_none() {
            info!(
                group,
                "there is no such group; only root can hand over deliveries"
            );
        }
        Ok(Self {
            socket: socket::bind(path, id)?,
            allowed: Allowed {
                user: geteuid().as_raw(),
                group: id.map(Gid::as_raw),
            },
            places: Arc::new(Semaphore::new(CONNECTIONS)),
        })
    }
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // It is never closed, so there is a place sooner or later.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        loop {
            // Waits by itself while there is no file descriptor left.
            let (stream, address) = axum::serve::Listener::accept(&mut self.socket).await;
            match stream.peer_cred() {
                Ok(peer) if self.allowed.includes(&peer) => {
                    let connection = Connection {
                        stream,
                        _place: place,
                    };
                    return (connection, address);
                }
                Ok(peer) => warn!(
                    uid = peer.uid(),
                    gid = peer.gid(),
                    "somebody who is not the webhook wants to hand over deliveries, and may not"
                ),
                Err(error) => {
                    warn!(%error, "the kernel does not say who wants to hand over deliveries");
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.socket.local_addr()
    }
}

/// A connection, which has its place until it is dropped.
pub(crate) struct Connection {
    stream: UnixStream,
    _place: Option<OwnedSemaphorePermit>,
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

/// Who may hand over deliveries.
#[derive(Clone, Copy, Debug)]
struct Allowed {
    /// The daemon's own user. It could do anything that the daemon does.
    user: u32,
    /// The webhook's group, if there is one.
    group: Option<u32>,
}

impl Allowed {
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
    fn the_webhooks_group_and_root_are_let_in() {
        let allowed = Allowed {
            user: 7,
            group: Some(5),
        };
        assert!(allowed.matches(0, 9) && allowed.matches(7, 9) && allowed.matches(1, 5));
        assert!(!allowed.matches(1, 9));
        assert!(!allowed.matches(5, 7), "users and groups are two things");
        let alone = Allowed {
            user: 0,
            group: None,
        };
        assert!(alone.matches(0, 0));
        assert!(!alone.matches(1, 0), "root's group is not root");
    }
}
