//! News that a file was changed, replaced, made or removed, also when it is a symbolic link (inotify(7)).

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

/// How many links of a chain are followed, as many as the kernel does (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// A subscription to what happens in the folders that lead to some files.
#[derive(Debug)]
pub(super) struct FileNews(AsyncFd<OwnedFd>);

impl FileNews {
    /// Subscribes. What happened before is not reported.
    pub(super) fn subscribe(files: &[PathBuf]) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let news = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        for folder in files.iter().flat_map(|file| folders(file)) {
            match inotify::add_watch(&inotify, &folder, news) {
                // The folder above is watched as well.
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self(watched(inotify, Interest::READABLE)?))
    }

    /// Waits until something happened in one of the folders, perhaps to another file.
    pub(super) async fn next(&self) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|inotify| {
                Reader::new(inotify.get_ref(), &mut buffer).next()?;
                Ok(())
            });
            // Otherwise there was nothing after all.
            if let Ok(read) = read {
                return read;
            }
        }
    }
}

/// The folder of a file and that of each link on the way to it. For a folder that is not there, the nearest one above it
/// that is.
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
            // A link from its folder; an absolute one replaces that.
            Ok(target) => file = lexically_resolved(&folder.join(target)),
            Err(_) => break,
        }
    }
    folders
}

/// The path without `.` and `..`. The folder of a link of the host's is no link itself.
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
