//! Who may connect to the intake.

use std::path::Path;

use innkeeper_host::FileError;
use nix::unistd::{Gid, geteuid};
use tokio::net::unix::{SocketAddr, UCred};
use tokio::net::{UnixListener, UnixStream};
use tracing::{info, warn};

use crate::socket;

/// The intake's socket. Of those whom its permissions let through, it takes programs that run as the group,
/// and root: a person who belongs to the group, or a program that was handed a connection, is not the webhook.
pub(crate) struct Listener {
    socket: UnixListener,
    allowed: Allowed,
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
        })
    }
}

impl axum::serve::Listener for Listener {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            // Waits by itself while there is no file descriptor left.
            let (stream, address) = axum::serve::Listener::accept(&mut self.socket).await;
            match stream.peer_cred() {
                Ok(peer) if self.allowed.includes(&peer) => return (stream, address),
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

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.socket.local_addr()
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
