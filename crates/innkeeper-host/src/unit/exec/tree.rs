//! Files in a guest's tree, resolved as inside the guest: links of the guest cannot lead outside of it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// Resolves a file in the guest's tree without opening it.
pub(super) fn hold(root: &File, path: &str) -> io::Result<File> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    Ok(rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)?.into())
}

/// Opens a resolved file.
pub(super) fn open(held: &File, flags: OFlags) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", held.as_raw_fd());
    Ok(rustix::fs::open(
        path,
        flags | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
    )?
    .into())
}
