//! The API's socket, and the identity of its clients.

use std::path::Path;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use innkeeper_host::FileError;
use innkeeper_model::Trust;
use tokio::net::UnixListener;
use tracing::warn;

use crate::socket;

/// The client of a connection, as reported by the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    uid: Option<u32>,
}

impl Peer {
    /// Returns the client as it is recorded with operations.
    pub(crate) fn actor(self) -> String {
        match self.uid {
            Some(uid) => format!("uid:{uid}"),
            None => "unknown".to_owned(),
        }
    }

    /// Returns the trust in the client's flakes: root and the daemon's own user may use any, all others only remote ones.
    pub(crate) fn trust(self) -> Trust {
        let own = nix::unistd::geteuid().as_raw();
        match self.uid {
            Some(uid) if uid == 0 || uid == own => Trust::Host,
            _ => Trust::Member,
        }
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let credentials = stream.io().peer_cred();
        Self {
            uid: credentials.ok().map(|credentials| credentials.uid()),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_includes_root_and_the_daemons_user_only() {
        let own = nix::unistd::geteuid().as_raw();
        let trust = |uid| Peer { uid }.trust();
        assert_eq!(trust(Some(0)), Trust::Host);
        assert_eq!(trust(Some(own)), Trust::Host);
        assert_eq!(trust(Some(own + 1)), Trust::Member);
        assert_eq!(trust(None), Trust::Member);
    }
}
