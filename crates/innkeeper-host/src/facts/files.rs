//! Notifications that a file was changed, replaced, created or removed, through symbolic links (inotify(7)).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::unit::process::watched;

/// Maximum length of a chain of links, as in the kernel (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// A subscription to events in the directories that lead to some files.
#[derive(Debug)]
pub(super) struct FileEvents(AsyncFd<OwnedFd>);

impl FileEvents {
    /// Subscribes. Earlier events are not reported.
    pub(super) fn subscribe(files: &[PathBuf]) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let events = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        for folder in files.iter().flat_map(|file| folders(file)) {
            match inotify::add_watch(&inotify, &folder, events) {
                // The directory above is watched as well.
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self(watched(inotify, Interest::READABLE)?))
    }

    /// Waits for an event in one of the directories. It may concern another file.
    pub(super) async fn next(&self) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|inotify| {
                Reader::new(inotify.get_ref(), &mut buffer).next()?;
                Ok(())
            });
            // Otherwise the wakeup was spurious.
            if let Ok(read) = read {
                return read;
            }
        }
    }
}

/// Returns the directory of a file and of each link on the way to it; for a missing directory, its nearest existing
/// ancestor.
fn folders(file: &Path) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
    let mut file = file.to_owned();
    for _ in 0..MAX_LINKS {
        let Some(folder) = file.parent() else {
            break;
        };
        let existing = folder.ancestors().find(|folder| folder.is_dir());
        folders.extend(existing.map(Path::to_owned));
        match fs::read_link(&file) {
            // Relative to the link's directory; an absolute target replaces it.
            Ok(target) => file = lexically_resolved(&folder.join(target)),
            Err(_) => break,
        }
    }
    folders
}

/// Removes `.` and `..` from a path. Directories of the host's links are not links themselves.
fn lexically_resolved(path: &Path) -> PathBuf {
    let mut resolved = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                resolved.pop();
            }
            Component::CurDir => {}
            other => resolved.push(other),
        }
    }
    resolved
}
