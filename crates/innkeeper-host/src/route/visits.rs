//! Detects visits of previews by access times. For each request Caddy lists a directory of the host, or follows its
//! link while it is settled.
//!
//! With `relatime`, the kernel updates an access time only if it is older than the last change. So each check resets it to
//! [`UNVISITED`], and the next request updates it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use innkeeper_model::{GuestName, settled};
use jiff::Timestamp;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, utimensat};

use super::files::names;
use super::render;
use super::render::access::CHECKED_DIR;
use crate::{FileError, FileErrorExt};

/// Access time, in seconds, of a directory that was not used since the last check.
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

/// Returns the last use of a preview's directories, and resets their access times.
fn take(directory: &Path) -> Result<Option<Timestamp>, FileError> {
    let hosts = directory.join("hosts");
    let mut last = None;
    let mut paths = Vec::new();
    for host in names(&hosts)? {
        let host = hosts.join(host);
        add_listed(&host, render::is_listed, &mut paths)?;
        let link = host.join(settled::LINK);
        if fs::symlink_metadata(&link).is_ok() {
            paths.push(link);
        }
    }
    for path in paths {
        let metadata = fs::symlink_metadata(&path).on("inspect", &path)?;
        if metadata.atime() == UNVISITED {
            continue;
        }
        let nanoseconds = i32::try_from(metadata.atime_nsec()).unwrap_or(0);
        last = last.max(Timestamp::new(metadata.atime(), nanoseconds).ok());
        reset(&path)?;
    }
    Ok(last)
}

/// Creates the link of a settled host, without a visit.
pub(super) fn link(target: &Path, link: &Path) -> Result<(), FileError> {
    symlink(target, link).on("create", link)?;
    reset(link)
}

fn reset(path: &Path) -> Result<(), FileError> {
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
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).on("change the times of", path)
}

/// Adds the directories below one that Caddy lists at requests, without listing them.
fn add_listed(
    dir: &Path,
    is_listed: fn(&str) -> bool,
    paths: &mut Vec<PathBuf>,
) -> Result<(), FileError> {
    for name in names(dir)? {
        let path = dir.join(&name);
        if name == CHECKED_DIR {
            add_listed(&path, is_listed, paths)?;
            continue;
        }
        if !fs::symlink_metadata(&path).on("inspect", &path)?.is_dir() {
            continue;
        }
        if is_listed(&name) {
            paths.push(path);
        } else {
            add_listed(&path, render::is_listed_pattern, paths)?;
        }
    }
    Ok(())
}
