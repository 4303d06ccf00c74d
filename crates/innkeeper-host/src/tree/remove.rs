//! Removal of a tree of any shape that a guest wrote.
//!
//! The tree is flattened: a non-empty directory is moved up into the topmost one, and removed from there. So neither
//! recursion nor open files grow with the depth of the tree, and no multi-component path is resolved.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, IFlags, Mode, OFlags, ResolveFlags, ioctl_getflags,
    ioctl_setflags, openat, openat2, renameat, statat, unlinkat,
};
use rustix::io::Errno;

use crate::FileError;

/// Removes a file or a directory recursively. Absence is success.
///
/// Follows no links and crosses no mount points: a mount inside the tree is an error, and its contents stay untouched. After
/// an error, removes the other entries and returns the first error. Clears the attributes "immutable" and "append only"
/// (chattr(1)), because NixOS sets one on `/var/empty`.
///
/// Nested btrfs subvolumes, and directories of an overlay's lower layer, cannot be moved. Each such level of nesting costs
/// three open files.
///
/// # Errors
/// If an entry remains. Its path may be a temporary one of the removal itself.
pub fn remove(path: &Path) -> Result<(), FileError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(failed(path)(Errno::INVAL));
    };
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat(CWD, parent, flags, Mode::empty()) {
        Ok(parent) => remove_at(parent.as_fd(), name, path),
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(failed(path)(errno)),
    }
}

/// Removes `name` from an open directory. `path` is its path in messages.
pub(super) fn remove_at(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    path: &Path,
) -> Result<(), FileError> {
    if remove_leaf(parent, name).map_err(failed(path))? {
        return Ok(());
    }
    if let Some(top) = open_directory(parent, name).map_err(failed(path))? {
        empty(top.as_fd(), path)?;
    }
    match remove_leaf(parent, name).map_err(failed(path))? {
        true => Ok(()),
        false => Err(failed(path)(Errno::NOTEMPTY)),
    }
}

/// Removes all entries of a directory.
fn empty(top: BorrowedFd<'_>, path: &Path) -> Result<(), FileError> {
    let mut flattening = Flattening {
        top,
        path,
        moved: 0,
    };
    loop {
        let mut failure = None;
        let mut seen = false;
        // Directories that are moved up may be missing in this pass; the next one finds them.
        for name in names(top).map_err(failed(path))? {
            let name = name.map_err(failed(path))?;
            seen = true;
            if let Err(error) = flattening.dissolve(OsStr::from_bytes(name.to_bytes())) {
                failure.get_or_insert(error);
            }
        }
        match failure {
            Some(failure) => return Err(failure),
            None if !seen => return Ok(()),
            None => {}
        }
    }
}

/// State of the removal of a directory's entries.
struct Flattening<'a> {
    top: BorrowedFd<'a>,
    path: &'a Path,
    moved: u64,
}

impl Flattening<'_> {
    /// Removes one entry of the topmost directory, after moving up its non-empty children.
    fn dissolve(&mut self, name: &OsStr) -> Result<(), FileError> {
        let path = self.path.join(name);
        if remove_leaf(self.top, name).map_err(failed(&path))? {
            return Ok(());
        }
        let Some(directory) = open_directory(self.top, name).map_err(failed(&path))? else {
            return Ok(());
        };
        loop {
            let mut seen = false;
            for child in names(directory.as_fd()).map_err(failed(&path))? {
                let child = child.map_err(failed(&path))?;
                seen = true;
                self.move_up(
                    directory.as_fd(),
                    OsStr::from_bytes(child.to_bytes()),
                    &path,
                )?;
            }
            if remove_leaf(self.top, name).map_err(failed(&path))? {
                return Ok(());
            }
            if !seen {
                return Err(failed(&path)(Errno::NOTEMPTY));
            }
        }
    }

    /// Removes a child of a directory, or moves it up if it is a non-empty directory.
    fn move_up(
        &mut self,
        directory: BorrowedFd<'_>,
        child: &OsStr,
        path: &Path,
    ) -> Result<(), FileError> {
        let path = path.join(child);
        if remove_leaf(directory, child).map_err(failed(&path))? {
            return Ok(());
        }
        loop {
            self.moved += 1;
            let name = format!(".innkeeper-{}", self.moved);
            let renamed = unlocked(directory, child, || {
                renameat(directory, child, self.top, &*name)
            });
            match renamed {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                // The guest has an entry of this name.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                Err(Errno::XDEV) => return remove_at(directory, child, &path),
                Err(errno) => return Err(failed(&path)(errno)),
            }
        }
    }
}

/// Returns the names in a directory, in the kernel's order.
fn names(
    directory: BorrowedFd<'_>,
) -> rustix::io::Result<impl Iterator<Item = rustix::io::Result<std::ffi::CString>>> {
    Ok(Dir::read_from(directory)?.filter_map(|entry| match entry {
        Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => None,
        Ok(entry) => Some(Ok(entry.file_name().to_owned())),
        Err(errno) => Some(Err(errno)),
    }))
}

/// Opens a directory to empty it. Returns `None` if it is gone or was replaced.
fn open_directory(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    match openat2(parent, name, flags, Mode::empty(), resolve) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        // A mount appeared since the attempt to remove it as a leaf.
        Err(Errno::XDEV) => Err(Errno::BUSY),
        Err(errno) => Err(errno),
    }
}

/// Removes a file or an empty directory. Returns false for a non-empty directory.
fn remove_leaf(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<bool> {
    let removed = unlocked(parent, name, || {
        match unlinkat(parent, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => unlinkat(parent, name, AtFlags::REMOVEDIR),
            result => result,
        }
    });
    match removed {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Runs an operation on an entry, and retries it once after clearing the attributes that forbid it.
fn unlocked(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    attempt: impl Fn() -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    match attempt() {
        Err(Errno::PERM) if unlock(parent, OsStr::new(".")) | unlock(parent, name) => attempt(),
        result => result,
    }
}

/// Clears the attributes that forbid removal. Reports whether any was set. Opens only files and directories: other types do
/// not have them.
fn unlock(parent: BorrowedFd<'_>, name: &OsStr) -> bool {
    let attempt = || {
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if !matches!(
            FileType::from_raw_mode(stat.st_mode),
            FileType::RegularFile | FileType::Directory
        ) {
            return Ok(false);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = openat(parent, name, flags, Mode::empty())?;
        let current = ioctl_getflags(&fd)?;
        let locks = IFlags::IMMUTABLE | IFlags::APPEND;
        if current.intersects(locks) {
            ioctl_setflags(&fd, current.difference(locks))?;
        }
        Ok::<_, Errno>(current.intersects(locks))
    };
    attempt().unwrap_or(false)
}

/// Returns the error for an entry that remains.
pub(super) fn failed(path: &Path) -> impl Fn(Errno) -> FileError {
    move |errno| FileError {
        action: "remove",
        path: path.to_owned(),
        source: match errno {
            Errno::BUSY => {
                io::Error::new(io::ErrorKind::ResourceBusy, "something is mounted there")
            }
            errno => errno.into(),
        },
    }
}
