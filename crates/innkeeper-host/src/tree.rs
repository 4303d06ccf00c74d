//! Safe file operations inside a tree that a guest can write.
//!
//! A guest is root in its own tree: it can place a symlink, a FIFO or a device anywhere. Ordinary path resolution could
//! therefore lead to the host's own files. So the kernel resolves all paths with the tree's root as `/` (openat2(2),
//! `RESOLVE_IN_ROOT` and `RESOLVE_NO_MAGICLINKS`, Linux 5.6): absolute links and `..` stay inside. A guest can only redirect
//! writes within its own tree.
//!
//! Files are written under a temporary name and renamed, so the last component is never followed and never half written.
//! Writes are not synced: the host writes these files again at each start.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, fchmod, fchown, fstat,
    mkdirat, openat, openat2, readlinkat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

use crate::{FileError, FileErrorExt};

mod digest;
mod owners;
mod remove;
#[cfg(test)]
mod tests;
mod usage;

pub use digest::{Covers, TreeDigest, digest, digest_file};
pub use owners::to_ids_in_guest;
pub use remove::remove;
pub use usage::{Usage, usage};

/// Owner of a file on disk, as host ids. [`crate::features::UserIds::on_disk`] translates guest ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The UID.
    pub uid: u32,
    /// The GID.
    pub gid: u32,
}

/// A guest's file tree, opened at its root. The caller must serialize writers.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    path: PathBuf,
    owner: Owner,
}

/// Maximum attempts of a step if the guest changes the tree concurrently.
const ATTEMPTS: usize = 32;

impl Tree {
    /// Opens the tree. `root` is a path of the host and must be a directory, not a link.
    ///
    /// # Errors
    /// If it does not exist or is not a directory.
    pub fn open(root: &Path) -> Result<Self, FileError> {
        let open = || {
            let fd = openat(CWD, root, OFlags::NOFOLLOW | DIRECTORY, Mode::empty())?;
            let stat = fstat(&fd)?;
            Ok::<_, Errno>((
                fd,
                Owner {
                    uid: stat.st_uid,
                    gid: stat.st_gid,
                },
            ))
        };
        let (fd, owner) = open().on("open", root)?;
        Ok(Self {
            root: fd,
            path: root.to_owned(),
            owner,
        })
    }

    /// Sets owner and mode of the tree's root. Directories that [`Self::write`] creates later get the same owner.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn own(&mut self, owner: Owner, mode: u32) -> Result<(), FileError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = self.resolve(Path::new("."), flags).on("open", &self.path)?;
        own(fd.as_fd(), owner, mode).on("change", &self.path)?;
        self.owner = owner;
        Ok(())
    }

    /// Reads a regular file of at most `max_len` bytes. Follows links as inside the guest. Opens only regular files: opening
    /// a FIFO would block, and opening a device can have side effects.
    ///
    /// # Errors
    /// If it does not exist, is not a regular file, or is longer.
    pub fn read(&self, path: &Path, max_len: usize) -> Result<Vec<u8>, FileError> {
        let read = || {
            let fd = self.resolve(relative(path)?, OFlags::PATH)?;
            if FileType::from_raw_mode(fstat(&fd)?.st_mode) != FileType::RegularFile {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "not a regular file",
                ));
            }
            let file = reopen(&fd)?;
            read_at_most(file, max_len)
        };
        read().on("read", self.name(path))
    }

    /// Writes a file atomically with this owner and mode. Creates missing parent directories with the owner of the tree's
    /// root and mode 0755, and replaces a dangling link or a file among the parents by a directory. Replaces anything at the
    /// file's path, but skips an identical file: replacing a file makes some filesystems flush it to disk at once.
    ///
    /// # Errors
    /// If it cannot be written. The old contents are kept.
    pub fn write(
        &self,
        path: &Path,
        contents: &[u8],
        owner: Owner,
        mode: u32,
    ) -> Result<(), FileError> {
        let write = || {
            let (directories, name) = split(path)?;
            let parent = self.parent(&directories)?;
            if is_written(parent.as_fd(), name, contents, owner, mode) {
                return Ok(());
            }
            let temporary = temporary_name(name);
            let file = create(parent.as_fd(), &temporary)?;
            let written = fill(file, contents, owner, mode)
                .and_then(|()| self.put_in_place(parent.as_fd(), &temporary, name));
            if written.is_err() {
                unlinkat(&parent, &temporary, AtFlags::empty()).ok();
            }
            written
        };
        write().on("write", self.name(path))
    }

    /// Creates a directory with this owner and mode, or sets them on an existing one. Handles parent directories like
    /// [`Self::write`]. Replaces anything else at the path, such as a link.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn make_dir(&self, path: &Path, owner: Owner, mode: u32) -> Result<(), FileError> {
        let make = || {
            let (directories, name) = split(path)?;
            let parent = self.parent(&directories)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            for _ in 0..ATTEMPTS {
                match openat(&parent, name, flags, Mode::empty()) {
                    Ok(fd) => return Ok::<_, io::Error>(own(fd.as_fd(), owner, mode)?),
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                        make_or_clear(parent.as_fd(), name)?;
                    }
                    Err(errno) => return Err(errno.into()),
                }
            }
            Err(Errno::AGAIN.into())
        };
        make().on("create", self.name(path))
    }

    /// Reports whether an entry of any kind exists, including a dangling link.
    ///
    /// # Errors
    /// If the directory cannot be inspected.
    pub fn exists(&self, path: &Path) -> Result<bool, FileError> {
        Ok(self.kind(path)?.is_some())
    }

    /// Returns the type of an entry, or `None` if it does not exist. Does not follow links.
    ///
    /// # Errors
    /// If the directory cannot be inspected.
    pub fn kind(&self, path: &Path) -> Result<Option<FileType>, FileError> {
        let inspect = || {
            let (directories, name) = split(path)?;
            let Some(parent) = absent(self.resolve(&joined(&directories), DIRECTORY))? else {
                return Ok::<_, io::Error>(None);
            };
            let found = absent(statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW))?;
            Ok(found.map(|found| FileType::from_raw_mode(found.st_mode)))
        };
        inspect().on("inspect", self.name(path))
    }

    /// Returns the target of a symlink, which the caller must not resolve on the host; `None` if there is no symlink. Follows
    /// links among the directories as inside the guest.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read_link(&self, path: &Path) -> Result<Option<PathBuf>, FileError> {
        let read = || {
            let (directories, name) = split(path)?;
            let Some(parent) = absent(self.resolve(&joined(&directories), DIRECTORY))? else {
                return Ok::<_, io::Error>(None);
            };
            match readlinkat(&parent, name, Vec::new()) {
                // Not a symlink.
                Err(Errno::INVAL) => Ok(None),
                target => Ok(absent(target)?
                    .map(|target| PathBuf::from(OsString::from_vec(target.into_bytes())))),
            }
        };
        read().on("read the link", self.name(path))
    }

    /// Lists the names in a directory. An absent directory is empty.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn list(&self, path: &Path) -> Result<Vec<OsString>, FileError> {
        let list = || {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let Some(fd) = absent(self.resolve(relative(path)?, flags))? else {
                return Ok(Vec::new());
            };
            let mut names = Vec::new();
            for entry in Dir::new(fd)? {
                let entry = entry?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if name != "." && name != ".." {
                    names.push(name.to_owned());
                }
            }
            Ok::<_, io::Error>(names)
        };
        list().on("list", self.name(path))
    }

    /// Removes an entry recursively, like [`remove()`].
    ///
    /// # Errors
    /// If a part of it remains.
    pub fn remove(&self, path: &Path) -> Result<(), FileError> {
        let find = || {
            let (directories, name) = split(path)?;
            let parent = absent(self.resolve(&joined(&directories), DIRECTORY))?;
            Ok::<_, io::Error>(parent.map(|parent| (parent, name)))
        };
        match find().on("remove", self.name(path))? {
            None => Ok(()),
            Some((parent, name)) => remove::remove_at(parent.as_fd(), name, &self.name(path)),
        }
    }

    /// Returns the host's path, for messages.
    fn name(&self, path: &Path) -> PathBuf {
        self.path.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Opens a path with the tree's root as `/`. The kernel returns `EAGAIN` after a concurrent rename while it resolves a
    /// `..`, because it cannot guarantee that the path stays inside.
    fn resolve(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..ATTEMPTS {
            let path = if path.as_os_str().is_empty() {
                Path::new(".")
            } else {
                path
            };
            match openat2(
                &self.root,
                path,
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                inside,
            ) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Opens a chain of directories, and creates missing ones.
    fn parent(&self, directories: &[&OsStr]) -> io::Result<OwnedFd> {
        let mut path = PathBuf::new();
        let mut current = self.resolve(&path, DIRECTORY)?;
        for name in directories {
            path.push(name);
            current = self.directory(current.as_fd(), name, &path)?;
        }
        Ok(current)
    }

    /// Opens the directory `name` in `parent`, and creates it if missing. `path` is its path from the root.
    fn directory(&self, parent: BorrowedFd<'_>, name: &OsStr, path: &Path) -> io::Result<OwnedFd> {
        for _ in 0..ATTEMPTS {
            match self.resolve(path, DIRECTORY) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                result => return Ok(result?),
            }
            if make_or_clear(parent, name)? {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                if let Some(made) = absent(openat(parent, name, flags, Mode::empty()))? {
                    own(made.as_fd(), self.owner, 0o755)?;
                }
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// Renames a finished file to its name. Removes a directory of that name recursively.
    fn put_in_place(
        &self,
        parent: BorrowedFd<'_>,
        temporary: &OsStr,
        name: &OsStr,
    ) -> io::Result<()> {
        match renameat(parent, temporary, parent, name) {
            Err(Errno::ISDIR) => {
                remove::remove_at(parent, name, &self.path.join(name)).map_err(|e| e.source)?;
                Ok(renameat(parent, temporary, parent, name)?)
            }
            result => Ok(result?),
        }
    }
}

/// Flags for a directory that only serves as a base of further calls.
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Returns the name under which a file is written before the rename. It is fixed, so that the next attempt replaces a
/// leftover of a crash.
fn temporary_name(name: &OsStr) -> OsString {
    let mut temporary = OsString::from(".innkeeper-");
    temporary.push(name);
    temporary
}

/// Reports whether a regular file has this owner, mode and contents, and no other hard link.
fn is_written(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    contents: &[u8],
    owner: Owner,
    mode: u32,
) -> bool {
    let compare = || {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(parent, name, flags, Mode::empty())?;
        let stat = fstat(&fd)?;
        let is_same = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && Mode::from_raw_mode(stat.st_mode) == Mode::from_raw_mode(mode)
            && (stat.st_uid, stat.st_gid, stat.st_nlink) == (owner.uid, owner.gid, 1);
        Ok::<_, io::Error>(is_same && read_at_most(reopen(&fd)?, contents.len())? == contents)
    };
    compare().unwrap_or(false)
}

/// Creates a new file. Never opens an existing link or FIFO of this name.
fn create(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for _ in 0..ATTEMPTS {
        match openat(parent, name, flags, Mode::RUSR | Mode::WUSR) {
            Err(Errno::EXIST) => {
                remove::remove_at(parent, name, Path::new(name)).map_err(|e| e.source)?;
            }
            result => return Ok(result?.into()),
        }
    }
    Err(Errno::EXIST.into())
}

/// Writes the contents while the file is private, then sets owner and mode.
fn fill(mut file: File, contents: &[u8], owner: Owner, mode: u32) -> io::Result<()> {
    file.write_all(contents)?;
    Ok(own(file.as_fd(), owner, mode)?)
}

/// Sets owner and mode, in this order: a change of owner clears setuid and setgid bits.
fn own(fd: BorrowedFd<'_>, owner: Owner, mode: u32) -> rustix::io::Result<()> {
    fchown(
        fd,
        Some(Uid::from_raw(owner.uid)),
        Some(Gid::from_raw(owner.gid)),
    )?;
    fchmod(fd, Mode::from_raw_mode(mode))
}

/// Creates a directory and returns true, or removes an entry of another type and returns false.
fn make_or_clear(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<bool> {
    match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => match unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => Ok(false),
            Err(errno) => Err(errno.into()),
        },
        Err(errno) => Err(errno.into()),
    }
}

/// Opens an `O_PATH` descriptor of a regular file for reading. The link in `/proc` always refers to the same file.
fn reopen(fd: &OwnedFd) -> rustix::io::Result<File> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map(File::from)
}

/// Reads a file, or fails if it is longer than `max_len` bytes.
pub(crate) fn read_at_most(file: File, max_len: usize) -> io::Result<Vec<u8>> {
    let limit = u64::try_from(max_len).unwrap_or(u64::MAX);
    let mut contents = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut contents)?;
    if contents.len() > max_len {
        let reason = format!("longer than {max_len} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    Ok(contents)
}

/// Converts errors for absent entries to `None`.
fn absent<T>(result: rustix::io::Result<T>) -> rustix::io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Splits a path into its directories and its last name. Rejects `..`: paths come from the host, so it is a mistake.
fn split(path: &Path) -> io::Result<(Vec<&OsStr>, &OsStr)> {
    let invalid = |reason| io::Error::new(io::ErrorKind::InvalidInput, reason);
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(invalid("'..' in the path")),
        }
    }
    let last = names.pop().ok_or_else(|| invalid("an empty path"))?;
    Ok((names, last))
}

/// Returns the path if [`split`] accepts it.
fn relative(path: &Path) -> io::Result<&Path> {
    split(path).map(|_| path)
}

fn joined(names: &[&OsStr]) -> PathBuf {
    names.iter().collect()
}

/// Flushes the file system of a path to disk.
///
/// # Errors
/// If the disk reports an error.
pub fn write_to_disk(path: &Path) -> Result<(), FileError> {
    let file = File::open(path).on("open", path)?;
    rustix::fs::syncfs(file)
        .map_err(io::Error::from)
        .on("write to the disk", path)
}

/// Runs file operations on a blocking thread.
///
/// # Errors
/// Those of `work`, or an error if it panics.
pub async fn blocking<T, E, F>(work: F) -> Result<T, E>
where
    T: Send + 'static,
    E: From<FileError> + Send + 'static,
    F: FnOnce() -> Result<T, E> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(join) => Err(FileError {
            action: "finish the work on",
            path: PathBuf::from("a guest's files"),
            source: io::Error::other(join),
        }
        .into()),
    }
}
