//! The API's socket, and the identity of its clients.

use std::path::Path;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use innkeeper_host::FileError;
use tokio::net::UnixListener;
use tracing::warn;

use crate::{guarded, socket};

/// The client of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Peer {
    /// A user of the host, as reported by the kernel.
    Local(Option<u32>),
    /// `innkeeper-gateway`, on behalf of another machine.
    Gateway,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let credentials = stream.io().peer_cred();
        Self::Local(credentials.ok().map(|credentials| credentials.uid()))
    }
}

impl Connected<IncomingStream<'_, guarded::Listener>> for Peer {
    fn connect_info(_: IncomingStream<'_, guarded::Listener>) -> Self {
        Self::Gateway
    }
}

/// Listens on the socket at `path`, for root and the members of `group`. The caller must hold the state directory's lock:
/// an existing socket is replaced.
///
/// # Errors
/// When the socket cannot be created.
pub(crate) fn bind(path: &Path, group: &str) -> Result<UnixListener, FileError> {
    let id = socket::group_id(group);
    if id.is_none() {
        warn!(group, "the group does not exist; only root can use the API");
    }
    socket::bind(path, id)
}
