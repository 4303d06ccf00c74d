//! The network namespace of a guest, from outside.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::thread;

use rustix::fs::fstat;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime;
use tokio::sync::oneshot;

use super::error::NetworkError;
use super::netlink::Connection;

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
        let leader = self.leader;
        let unreachable = |source| NetworkError::Leader { leader, source };
        let file = Arc::clone(&self.file);
        let (opened, connection) = oneshot::channel();
        thread::Builder::new()
            .name(format!("netns-{leader}"))
            .spawn(move || {
                // The receiver is gone when the caller was canceled; the connection is then dropped.
                opened.send(open_inside(&file, &runtime)).ok();
            })
            .map_err(unreachable)?;
        let connection = connection
            .await
            .map_err(|_| unreachable(io::ErrorKind::Other.into()))?;
        connection.map_err(unreachable)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the calling thread was made for this and ends right after it"
)]
fn open_inside(namespace: &File, runtime: &runtime::Handle) -> io::Result<Connection> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    Connection::open(runtime)
}

/// Two descriptors with the same identity are the same namespace (namespaces(7)).
fn identity(file: &File) -> io::Result<(u64, u64)> {
    let status = fstat(file)?;
    Ok((status.st_dev, status.st_ino))
}
