//! Detects visits of previews by the access times of files. For each request Caddy reads the template of the host, or
//! follows the link that marks a live route.
//!
//! With `relatime`, the kernel updates an access time only if it is older than the last change. So each check resets it to
//! [`UNVISITED`], and the next request updates it.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use innkeeper_model::GuestName;
use jiff::Timestamp;
use rustix::fs::{AtFlags, CWD, OFlags, Timespec, Timestamps, UTIME_OMIT, utimensat};

use super::files::names;
use crate::{FileError, FileErrorExt};

/// Access time, in seconds, of a file that was not used since the last check.
const UNVISITED: i64 = 0;

/// Starts to watch the files of one preview's directory.
pub(super) fn start(directory: &Path) -> Result<(), FileError> {
    take(directory).map(drop)
}

/// Returns the previews that were visited since the last call, with the time of the last visit.
pub(super) fn collect(previews: &Path) -> Result<Vec<(GuestName, Timestamp)>, FileError> {
    let mut visits = Vec::new();
    for name in names(previews)? {
        let Ok(slug) = GuestName::parse(&name) else {
            continue;
        };
        if let Some(time) = take(&previews.join(&name))? {
            visits.push((slug, time));
        }
    }
    Ok(visits)
}

/// Reads a file without changing its access time. Returns `None` if it does not exist.
pub(super) fn read_without_visit(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    let open = |flags: OFlags| {
        let mut options = File::options();
        let flags = i32::try_from(flags.bits()).unwrap_or(0);
        options.read(true).custom_flags(flags).open(path)
    };
    let opened = match open(OFlags::NOATIME) {
        // Not the owner: counts as a visit.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => open(OFlags::empty()),
        opened => opened,
    };
    let mut file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.on("open", path)?,
    };
    let mut contents = Vec::new();
    file.read_to_end(&mut contents).on("read", path)?;
    Ok(Some(contents))
}

/// Returns the last use of a preview's files, and resets their access times.
fn take(directory: &Path) -> Result<Option<Timestamp>, FileError> {
    let hosts = directory.join("hosts");
    let templates = names(&hosts)?.into_iter().map(|name| hosts.join(name));
    let files = names(directory)?
        .into_iter()
        .map(|name| directory.join(name));
    let links =
        files.filter(|path| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink()));
    let mut last = None;
    for path in templates.chain(links) {
        let metadata = fs::symlink_metadata(&path).on("inspect", &path)?;
        if metadata.atime() == UNVISITED {
            continue;
        }
        let nanoseconds = i32::try_from(metadata.atime_nsec()).unwrap_or(0);
        last = last.max(Timestamp::new(metadata.atime(), nanoseconds).ok());
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: UNVISITED,
                tv_nsec: 0,
            },
            last_modification: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
        };
        utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW)
            .on("change the times of", &path)?;
    }
    Ok(last)
}
