//! The network namespace of a guest, from outside.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::fs::fstat;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime;
use tokio::sync::oneshot;

use super::error::NetworkError;
use super::netlink::Connection;

/// Limit of an attempt to connect. Only a guest's own firewall lets one take time.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// A guest's network namespace, held open: it stays the checked namespace even if the process that it was found by ends.
#[derive(Debug)]
pub(super) struct Namespace {
    file: Arc<File>,
    leader: u32,
}

impl Namespace {
    /// Opens the network namespace of a process. Fails for the daemon's own: the guest's default route would become the
    /// host's.
    pub(super) fn of(leader: u32) -> Result<Self, NetworkError> {
        let unreachable = |source| NetworkError::Leader { leader, source };
        let file = File::open(format!("/proc/{leader}/ns/net")).map_err(unreachable)?;
        let own = File::open("/proc/thread-self/ns/net").map_err(unreachable)?;
        if identity(&file).map_err(unreachable)? == identity(&own).map_err(unreachable)? {
            return Err(NetworkError::HostNamespace { leader });
        }
        Ok(Self {
            file: Arc::new(file),
            leader,
        })
    }

    /// Returns a descriptor of the namespace, for requests that move an interface there. Valid as long as `self`.
    pub(super) fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Opens a netlink connection inside the namespace, driven by `runtime`.
    ///
    /// A new thread enters the namespace and ends when the socket is open: on a thread of the runtime, other tasks would
    /// run in the guest's namespace.
    pub(super) async fn connect(
        &self,
        runtime: runtime::Handle,
    ) -> Result<Connection, NetworkError> {
        self.inside(move || Connection::open(&runtime)).await
    }

    /// Opens a TCP connection inside the namespace, to the first of the addresses that accepts one.
    pub(super) async fn connect_tcp(
        &self,
        addresses: Vec<SocketAddr>,
    ) -> Result<Option<TcpStream>, NetworkError> {
        self.inside(move || first_open(&addresses)).await
    }

    /// Runs `work` inside the namespace, on a thread of its own, which it may block.
    async fn inside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, NetworkError> {
        let leader = self.leader;
        let unreachable = |source| NetworkError::Leader { leader, source };
        let file = Arc::clone(&self.file);
        let (done, result) = oneshot::channel();
        thread::Builder::new()
            .name(format!("netns-{leader}"))
            .spawn(move || {
                let result = enter(&file).and_then(|()| work());
                // The receiver is gone when the caller was canceled; the connection is then dropped.
                done.send(result).ok();
            })
            .map_err(unreachable)?;
        let result = result
            .await
            .map_err(|_| unreachable(io::ErrorKind::Other.into()))?;
        result.map_err(unreachable)
    }
}

/// Returns a non-blocking connection to the first address that accepts one.
fn first_open(addresses: &[SocketAddr]) -> io::Result<Option<TcpStream>> {
    for address in addresses {
        let Ok(stream) = TcpStream::connect_timeout(address, CONNECT_LIMIT) else {
            continue;
        };
        // Without a server, a socket can connect to itself: the kernel may give it this port.
        if stream.local_addr()? == *address {
            continue;
        }
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        return Ok(Some(stream));
    }
    Ok(None)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the calling thread was made for this and ends right after it"
)]
fn enter(namespace: &File) -> io::Result<()> {
    let network = Some(LinkNameSpaceType::Network);
    Ok(move_into_link_name_space(namespace.as_fd(), network)?)
}

/// Two descriptors with the same identity are the same namespace (namespaces(7)).
fn identity(file: &File) -> io::Result<(u64, u64)> {
    let status = fstat(file)?;
    Ok((status.st_dev, status.st_ino))
}
