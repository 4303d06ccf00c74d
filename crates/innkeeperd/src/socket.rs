//! Unix sockets that only some may connect to.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use innkeeper_host::{FileError, FileErrorExt};
use nix::unistd::{Gid, Group, chown};
use tokio::net::UnixListener;

/// The group of this name, if there is one.
pub(crate) fn group_id(name: &str) -> Option<Gid> {
    Group::from_name(name).ok()?.map(|group| group.gid)
}

/// Listens on a socket at `path`, for root and the members of the group. The caller holds the state
/// directory's lock, so a socket that is there belongs to a daemon that is gone.
///
/// # Errors
/// When the socket cannot be made.
pub(crate) fn bind(path: &Path, group: Option<Gid>) -> Result<UnixListener, FileError> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).on("create", directory)?;
    }
    // Made aside and moved into place with its final permissions: at no time can a stranger connect.
    let aside = path.with_extension("new");
    remove_if_there(&aside).on("remove", &aside)?;
    let listener = UnixListener::bind(&aside).on("listen on", &aside)?;
    if group.is_some() {
        chown(&aside, None, group).on("give to the group", &aside)?;
    }
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    fs::set_permissions(&aside, fs::Permissions::from_mode(mode))
        .on("set permissions of", &aside)?;
    fs::rename(&aside, path).on("rename", &aside)?;
    Ok(listener)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
