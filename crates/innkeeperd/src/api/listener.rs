//! The Unix socket: who may connect, and who did.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use innkeeper_host::{FileError, FileErrorExt};
use nix::unistd::{Gid, Group, chown};
use tokio::net::UnixListener;
use tracing::warn;

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
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).on("create", directory)?;
    }
    // Made aside and moved into place with its final permissions: at no time can a stranger connect.
    let aside = path.with_extension("new");
    remove_if_there(&aside).on("remove", &aside)?;
    let listener = UnixListener::bind(&aside).on("listen on", &aside)?;
    let mode = match group_id(group) {
        Some(gid) => {
            chown(&aside, None, Some(gid)).on("give to the group", &aside)?;
            0o660
        }
        None => {
            warn!(group, "there is no such group; only root can use the API");
            0o600
        }
    };
    fs::set_permissions(&aside, fs::Permissions::from_mode(mode))
        .on("set permissions of", &aside)?;
    fs::rename(&aside, path).on("rename", &aside)?;
    Ok(listener)
}

fn group_id(name: &str) -> Option<Gid> {
    Group::from_name(name).ok()?.map(|group| group.gid)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
