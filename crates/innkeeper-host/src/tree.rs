//! File work inside a tree that a guest may have written.
//!
//! A guest is root in its own tree: it can put a symlink, a FIFO or a device in any place. A path that
//! the host walks there the ordinary way would lead wherever the guest wants, up to the host's own
//! files. So every path is resolved by the kernel with the tree's root as `/` (openat2(2),
//! `RESOLVE_IN_ROOT` and `RESOLVE_NO_MAGICLINKS`, Linux 5.6): an absolute link and a `..` stay inside.
//! Where inside a write lands is then the guest's own business.
//!
//! What the host writes is written aside and renamed into place, so the last component is never
//! followed and never half written. Nothing is synced to the disk: what stands in a guest's tree is
//! made from what the host has elsewhere, and made again at each start.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, fchmod, fchown, fstat,
    mkdirat, openat, openat2, renameat, statat, unlinkat,
};
use rustix::io::Errno;

use crate::{FileError, FileErrorExt};

mod remove;
#[cfg(test)]
mod tests;
mod usage;

pub use remove::remove;
pub use usage::{Usage, usage};

/// Who owns a file on disk. The ids are the host's; [`crate::features::UserIds::on_disk`] translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// A guest's file tree, opened at its root. One writer at a time is assumed.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    path: PathBuf,
    owner: Owner,
}

/// How often a step is tried when something changes the tree at the same time.
const ATTEMPTS: usize = 32;

impl Tree {
    /// Opens the tree. `root` itself is the host's own path and must be a directory, not a link.
    ///
    /// # Errors
    /// When it is not there or no directory.
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

    /// Gives the tree's root this owner and these mode bits. Directories that [`Self::write`] makes later
    /// belong to the same owner.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn own(&mut self, owner: Owner, mode: u32) -> Result<(), FileError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = self.resolve(Path::new("."), flags).on("open", &self.path)?;
        own(fd.as_fd(), owner, mode).on("change", &self.path)?;
        self.owner = owner;
        Ok(())
    }

    /// The contents of a regular file of at most `max_len` bytes. Links are followed as the guest would
    /// follow them. Nothing but a regular file is opened: opening a FIFO would wait, opening a device
    /// can have effects.
    ///
    /// # Errors
    /// When it is not there, no regular file, or longer.
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

    /// Writes a file with this owner and these mode bits. Missing directories above it are made, with
    /// the owner of the tree's root and mode 0755; a link above it that leads nowhere, or a file, is
    /// replaced by a directory. What stands in the file's place is replaced whatever it is, unless it is
    /// this very file already: replacing a file makes some filesystems write it to the disk at once.
    ///
    /// # Errors
    /// When it cannot be written; then the former contents are still there.
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
            let aside = aside(name);
            let file = create(parent.as_fd(), &aside)?;
            let written = fill(file, contents, owner, mode)
                .and_then(|()| self.put_in_place(parent.as_fd(), &aside, name));
            if written.is_err() {
                unlinkat(&parent, &aside, AtFlags::empty()).ok();
            }
            written
        };
        write().on("write", self.name(path))
    }

    /// Makes a directory with this owner and these mode bits, or gives them to the one that is there.
    /// Directories above it are treated as in [`Self::write`]. Anything else in its place, a link above
    /// all, is replaced.
    ///
    /// # Errors
    /// When it cannot be made.
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

    /// Whether there is an entry of this name, of any kind. A link counts, wherever it leads.
    ///
    /// # Errors
    /// When the directory cannot be looked at.
    pub fn exists(&self, path: &Path) -> Result<bool, FileError> {
        Ok(self.kind(path)?.is_some())
    }

    /// What an entry is; nothing when there is none. A link is a link, wherever it leads.
    ///
    /// # Errors
    /// When the directory cannot be looked at.
    pub fn kind(&self, path: &Path) -> Result<Option<FileType>, FileError> {
        let look = || {
            let (directories, name) = split(path)?;
            let Some(parent) = absent(self.resolve(&joined(&directories), DIRECTORY))? else {
                return Ok::<_, io::Error>(None);
            };
            let found = absent(statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW))?;
            Ok(found.map(|found| FileType::from_raw_mode(found.st_mode)))
        };
        look().on("look at", self.name(path))
    }

    /// The names in a directory; none when it is not there.
    ///
    /// # Errors
    /// When it cannot be read.
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

    /// Removes an entry with all that is below it, as [`remove()`] does.
    ///
    /// # Errors
    /// When something of it is left.
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

    /// The path as the host's messages show it.
    fn name(&self, path: &Path) -> PathBuf {
        self.path.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Opens a path with the tree's root as `/`. The kernel answers `EAGAIN` when something was renamed
    /// while it walked over a `..`, because it cannot be sure then that the walk stayed inside.
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
                answer => return answer,
            }
        }
        Err(Errno::AGAIN)
    }

    /// The directory at the end of these names, made where it is missing.
    fn parent(&self, directories: &[&OsStr]) -> io::Result<OwnedFd> {
        let mut path = PathBuf::new();
        let mut here = self.resolve(&path, DIRECTORY)?;
        for name in directories {
            path.push(name);
            here = self.directory(here.as_fd(), name, &path)?;
        }
        Ok(here)
    }

    /// The directory `name` in `parent`, which is `path` from the root; made where it is missing.
    fn directory(&self, parent: BorrowedFd<'_>, name: &OsStr, path: &Path) -> io::Result<OwnedFd> {
        for _ in 0..ATTEMPTS {
            match self.resolve(path, DIRECTORY) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                answer => return Ok(answer?),
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

    /// Renames a finished file to its name. A directory in its place goes with all that is in it.
    fn put_in_place(&self, parent: BorrowedFd<'_>, aside: &OsStr, name: &OsStr) -> io::Result<()> {
        match renameat(parent, aside, parent, name) {
            Err(Errno::ISDIR) => {
                remove::remove_at(parent, name, &self.path.join(name)).map_err(|e| e.source)?;
                Ok(renameat(parent, aside, parent, name)?)
            }
            answer => Ok(answer?),
        }
    }
}

/// A directory to go on from, not to be read.
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Where a file is written before it is renamed. The name is always the same, so that what a crash
/// leaves is replaced by the next attempt and does not pile up.
fn aside(name: &OsStr) -> OsString {
    let mut aside = OsString::from(".innkeeper-");
    aside.push(name);
    aside
}

/// Whether there is a regular file with this owner, these mode bits, these contents and no other name.
fn is_written(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    contents: &[u8],
    owner: Owner,
    mode: u32,
) -> bool {
    let look = || {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(parent, name, flags, Mode::empty())?;
        let stat = fstat(&fd)?;
        let alike = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && Mode::from_raw_mode(stat.st_mode) == Mode::from_raw_mode(mode)
            && (stat.st_uid, stat.st_gid, stat.st_nlink) == (owner.uid, owner.gid, 1);
        Ok::<_, io::Error>(alike && read_at_most(reopen(&fd)?, contents.len())? == contents)
    };
    look().unwrap_or(false)
}

/// Creates a file that was not there before; neither a link nor a FIFO of this name can be opened.
fn create(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for _ in 0..ATTEMPTS {
        match openat(parent, name, flags, Mode::RUSR | Mode::WUSR) {
            Err(Errno::EXIST) => {
                remove::remove_at(parent, name, Path::new(name)).map_err(|e| e.source)?;
            }
            answer => return Ok(answer?.into()),
        }
    }
    Err(Errno::EXIST.into())
}

/// Writes the contents while the file is private, then hands it over.
fn fill(mut file: File, contents: &[u8], owner: Owner, mode: u32) -> io::Result<()> {
    file.write_all(contents)?;
    Ok(own(file.as_fd(), owner, mode)?)
}

/// Sets owner and mode, in this order: a change of owner clears some mode bits.
fn own(fd: BorrowedFd<'_>, owner: Owner, mode: u32) -> rustix::io::Result<()> {
    fchown(
        fd,
        Some(Uid::from_raw(owner.uid)),
        Some(Gid::from_raw(owner.gid)),
    )?;
    fchmod(fd, Mode::from_raw_mode(mode))
}

/// Makes a directory and says so, or removes what is in its place if that is no directory.
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

/// Opens for reading what is known to be a regular file. The link in `/proc` leads to that very file.
fn reopen(fd: &OwnedFd) -> rustix::io::Result<File> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map(File::from)
}

/// All of a file, unless it is longer than that.
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

/// Nothing, where the kernel says that there is nothing.
fn absent<T>(answer: rustix::io::Result<T>) -> rustix::io::Result<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The names of a path's directories, and its last name. The path is the host's own choice, so a `..`
/// in it is a mistake.
fn split(path: &Path) -> io::Result<(Vec<&OsStr>, &OsStr)> {
    let refuse = |reason| io::Error::new(io::ErrorKind::InvalidInput, reason);
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(refuse("'..' in the path")),
        }
    }
    let last = names.pop().ok_or_else(|| refuse("an empty path"))?;
    Ok((names, last))
}

/// The path, if [`split`] accepts it.
fn relative(path: &Path) -> io::Result<&Path> {
    split(path).map(|_| path)
}

fn joined(names: &[&OsStr]) -> PathBuf {
    names.iter().collect()
}

/// Returns when all that was written to the file system of a path is on the disk.
///
/// # Errors
/// What the disk says.
pub(crate) fn write_to_disk(path: &Path) -> Result<(), FileError> {
    let file = File::open(path).on("open", path)?;
    rustix::fs::syncfs(file)
        .map_err(io::Error::from)
        .on("write to the disk", path)
}

/// Runs file work on a thread that may wait for the disk.
///
/// # Errors
/// Those of the work itself; and when the work panics, one that says so.
pub(crate) async fn blocking<T, E, F>(work: F) -> Result<T, E>
where
    T: Send + 'static,
    E: From<FileError> + Send + 'static,
    F: FnOnce() -> Result<T, E> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer,
        Err(join) => Err(FileError {
            action: "finish the work on",
            path: PathBuf::from("a guest's files"),
            source: io::Error::other(join),
        }
        .into()),
    }
}
