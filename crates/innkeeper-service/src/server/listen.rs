//! Sockets to listen on: those that systemd has opened (sd_listen_fds(3)), or new ones.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use listenfd::ListenFd;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// A socket that accepts connections.
pub trait Listener {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static;

    /// Accepts a connection, and returns it with the address of its peer, if it has one.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Option<IpAddr>)>> + Send;

    /// Waits until the peer sends something. Reports false when the connection ended before.
    fn has_sent(stream: &Self::Stream) -> impl Future<Output = bool> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Option<IpAddr>)> {
        let (stream, address) = Self::accept(self).await?;
        Ok((stream, Some(address.ip().to_canonical())))
    }

    async fn has_sent(stream: &TcpStream) -> bool {
        matches!(stream.peek(&mut [0]).await, Ok(1..))
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Option<IpAddr>)> {
        let (stream, _) = Self::accept(self).await?;
        Ok((stream, None))
    }

    async fn has_sent(stream: &UnixStream) -> bool {
        // Also true at the end of the connection, which hyper finds at once.
        stream.readable().await.is_ok()
    }
}

/// The sockets that systemd has passed, in the order of the unit's `ListenStream=`. They can be received once only.
pub struct Passed(ListenFd);

impl Passed {
    /// Receives the sockets.
    #[must_use]
    pub fn receive() -> Self {
        Self(ListenFd::from_env())
    }

    /// Returns the passed socket at an index, or else listens on an address.
    ///
    /// # Errors
    /// The kernel's.
    pub fn tcp(&mut self, index: usize, address: SocketAddr) -> io::Result<TcpListener> {
        let listener = match self.0.take_tcp_listener(index)? {
            Some(passed) => passed,
            None => std::net::TcpListener::bind(address)?,
        };
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    }

    /// Returns the passed socket at an index, or else listens on a path. `admit` sets the permissions of a new socket.
    ///
    /// # Errors
    /// The kernel's, and that of `admit`.
    pub fn unix(
        &mut self,
        index: usize,
        path: &Path,
        admit: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<UnixListener> {
        let listener = match self.0.take_unix_listener(index)? {
            Some(passed) => passed,
            None => {
                remove_stale(path)?;
                let listener = std::os::unix::net::UnixListener::bind(path)?;
                admit(path)?;
                listener
            }
        };
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    }
}

/// Removes the socket of a former run. Another kind of file stays, and binding fails.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => fs::remove_file(path),
        _ => Ok(()),
    }
}
