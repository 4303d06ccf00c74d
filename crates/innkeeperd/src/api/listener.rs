//! The API's socket: who may connect, and who did.

use std::path::Path;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use innkeeper_host::FileError;
use innkeeper_model::Trust;
use tokio::net::UnixListener;
use tracing::warn;

use crate::socket;

/// Who is at the other end of a connection, as the kernel says.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    uid: Option<u32>,
}

impl Peer {
    /// The caller as recorded with operations.
    #[must_use]
    pub fn actor(self) -> String {
        match self.uid {
            Some(uid) => format!("uid:{uid}"),
            None => "unknown".to_owned(),
        }
    }

    /// How much the caller's flakes are trusted: root and the daemon's own user may use any, all others remote ones.
    #[must_use]
    pub fn trust(self) -> Trust {
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

/// Listens on the socket at `path`, for root and the members of `group`. The caller holds the state
/// directory's lock, so a socket that is there belongs to a daemon that is gone.
///
/// # Errors
/// When the socket cannot be made.
pub fn bind(path: &Path, group: &str) -> Result<UnixListener, FileError> {
    let id = socket::group_id(group);
    if id.is_none() {
        warn!(group, "there is no such group; only root can use the API");
    }
    socket::bind(path, id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_the_daemons_own_user_are_trusted() {
        let own = nix::unistd::geteuid().as_raw();
        let trust = |uid| Peer { uid }.trust();
        assert_eq!(trust(Some(0)), Trust::Host);
        assert_eq!(trust(Some(own)), Trust::Host);
        assert_eq!(trust(Some(own + 1)), Trust::Member);
        assert_eq!(trust(None), Trust::Member);
    }
}
