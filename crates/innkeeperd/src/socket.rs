//! Unix sockets with access control.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use innkeeper_host::{FileError, FileErrorExt};
use nix::unistd::{Gid, Group, chown};
use tokio::net::{UnixDatagram, UnixListener};

/// Returns the id of a group, if the group exists.
pub(crate) fn group_id(name: &str) -> Option<Gid> {
    Group::from_name(name).ok()?.map(|group| group.gid)
}

/// Listens on a socket at `path`, for root and the members of the group. The caller must hold the state directory's lock:
/// an existing socket is replaced.
///
/// # Errors
/// When the socket cannot be created.
pub(crate) fn bind(path: &Path, group: Option<Gid>) -> Result<UnixListener, FileError> {
    bind_as(path, group, |path| UnixListener::bind(path))
}

/// As [`bind`], for datagrams.
///
/// # Errors
/// When the socket cannot be created.
pub(crate) fn bind_datagram(path: &Path, group: Option<Gid>) -> Result<UnixDatagram, FileError> {
    bind_as(path, group, |path| UnixDatagram::bind(path))
}

fn bind_as<S>(
    path: &Path,
    group: Option<Gid>,
    bind: impl FnOnce(&Path) -> io::Result<S>,
) -> Result<S, FileError> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).on("create", directory)?;
    }
    // Created under another name and renamed with its final permissions, so that no stranger can ever connect.
    let temporary = path.with_extension("new");
    remove_if_present(&temporary).on("remove", &temporary)?;
    let listener = bind(&temporary).on("listen on", &temporary)?;
    if group.is_some() {
        chown(&temporary, None, group).on("give to the group", &temporary)?;
    }
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    fs::set_permissions(&temporary, fs::Permissions::from_mode(mode))
        .on("set permissions of", &temporary)?;
    fs::rename(&temporary, path).on("rename", &temporary)?;
    Ok(listener)
}

fn remove_if_present(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
