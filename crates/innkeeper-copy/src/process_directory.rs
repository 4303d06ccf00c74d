//! Directories by the descriptors of this process in `/proc`, with the standard library alone.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::{Dir, Kind};

/// A directory that is held open. It is named by `/proc/self/fd`, and the kernel resolves only the last component of such a path
/// in it.
#[derive(Debug)]
pub struct ProcessDir(File);

// `asm/fcntl.h`: the two flags differ between architectures.
#[cfg(any(target_arch = "aarch64", target_arch = "arm"))]
const O_DIRECTORY: i32 = 0o40_000;
#[cfg(any(target_arch = "aarch64", target_arch = "arm"))]
const O_NOFOLLOW: i32 = 0o100_000;
#[cfg(not(any(target_arch = "aarch64", target_arch = "arm")))]
const O_DIRECTORY: i32 = 0o200_000;
#[cfg(not(any(target_arch = "aarch64", target_arch = "arm")))]
const O_NOFOLLOW: i32 = 0o400_000;
const O_NONBLOCK: i32 = 0o4_000;

impl ProcessDir {
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }

    fn join(&self, name: &OsStr) -> PathBuf {
        self.path().join(name)
    }
}

impl Dir for ProcessDir {
    fn new(directory: File) -> Self {
        Self(directory)
    }

    fn file(&self) -> &File {
        &self.0
    }

    fn names(&self) -> io::Result<Vec<OsString>> {
        fs::read_dir(self.path())?
            .map(|entry| Ok(entry?.file_name()))
            .collect()
    }

    fn kind(&self, name: &OsStr) -> io::Result<Kind> {
        Ok(fs::symlink_metadata(self.join(name))?.file_type().into())
    }

    fn open_dir(&self, name: &OsStr) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(O_DIRECTORY | O_NOFOLLOW);
        options.open(self.join(name)).map(Self)
    }

    fn open_file(&self, name: &OsStr) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK);
        options.open(self.join(name))
    }

    fn link_target(&self, name: &OsStr) -> io::Result<PathBuf> {
        fs::read_link(self.join(name))
    }

    fn create_dir(&self, name: &OsStr) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(self.join(name))
    }

    fn create_file(&self, name: &OsStr) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        options.custom_flags(O_NOFOLLOW).open(self.join(name))
    }

    fn create_link(&self, target: &Path, name: &OsStr) -> io::Result<()> {
        std::os::unix::fs::symlink(target, self.join(name))
    }

    fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        fs::rename(self.join(from), self.join(to))
    }

    fn remove(&self, name: &OsStr) -> io::Result<()> {
        fs::remove_file(self.join(name))
    }
}
