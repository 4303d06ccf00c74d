//! Disk usage of a tree that a guest wrote.

use std::path::Path;
use std::time::Instant;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, openat, openat2, statat,
};
use rustix::io::Errno;

use crate::FileError;
use crate::tree::remove::failed;

/// Maximum depth, which bounds the open directories. Deeper ones are not counted.
const MAX_DEPTH: usize = 200;

/// Disk usage of a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in blocks, not lengths of files. A file with several hard links counts once in total.
    pub bytes: u64,
    /// Number of files, directories, links and other entries.
    pub inodes: u64,
    /// False if the deadline or the maximum depth was reached.
    pub complete: bool,
}

/// Counts the entries below a directory until the deadline. Follows no links, crosses no mount points and opens only
/// directories. Skips entries that are removed meanwhile.
///
/// # Errors
/// If the directory itself cannot be opened.
pub fn usage(path: &Path, deadline: Instant) -> Result<Usage, FileError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = openat(CWD, path, flags, Mode::empty())
        .and_then(Dir::new)
        .map_err(failed(path))?;
    let mut usage = Usage {
        complete: true,
        ..Usage::default()
    };
    let mut open = vec![top];
    while let Some(directory) = open.last_mut() {
        let Some(Ok(entry)) = directory.read() else {
            open.pop();
            continue;
        };
        if Instant::now() >= deadline {
            usage.complete = false;
            break;
        }
        let name = entry.file_name();
        if [c".", c".."].contains(&name) {
            continue;
        }
        let Ok(parent) = directory.fd() else { continue };
        let Ok(stat) = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let links = if is_directory {
            1
        } else {
            stat.st_nlink.max(1)
        };
        usage.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512 / links;
        usage.inodes += 1;
        if is_directory {
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
            let child = openat2(parent, name, flags, Mode::empty(), resolve).and_then(Dir::new);
            match child {
                Ok(child) if open.len() < MAX_DEPTH => open.push(child),
                // A mount, which is not part of the tree, or a removed directory.
                Err(Errno::XDEV | Errno::NOENT) => {}
                _ => usage.complete = false,
            }
        }
    }
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn usage_counts_the_tree_but_no_targets_of_links() {
        let outside = tempfile::tempdir().expect("a folder");
        fs::write(outside.path().join("large"), vec![1; 4 << 20]).expect("written");
        let tree = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(tree.path().join("a/b")).expect("made");
        fs::write(tree.path().join("a/b/file"), vec![1; 1 << 20]).expect("written");
        fs::hard_link(tree.path().join("a/b/file"), tree.path().join("name")).expect("linked");
        std::os::unix::fs::symlink(outside.path(), tree.path().join("out")).expect("linked");
        rustix::fs::mknodat(CWD, tree.path().join("fifo"), FileType::Fifo, Mode::RUSR, 0)
            .expect("a FIFO, which must not be opened");

        let usage = usage(tree.path(), soon()).expect("counted");
        assert!(usage.complete);
        assert_eq!(
            usage.inodes, 6,
            "a, b, two names of the file, the link, the FIFO"
        );
        let mebibyte = 1 << 20;
        assert!((mebibyte..2 * mebibyte).contains(&usage.bytes), "{usage:?}");
    }

    #[test]
    fn usage_stops_at_the_depth_limit_and_the_deadline() {
        let tree = tempfile::tempdir().expect("a folder");
        let deep = vec!["d"; 2 * MAX_DEPTH].join("/");
        fs::create_dir_all(tree.path().join(deep)).expect("made");
        let counted = usage(tree.path(), soon()).expect("counted");
        assert_eq!((counted.inodes, counted.complete), (200, false));
        let late = usage(tree.path(), Instant::now()).expect("counted");
        assert!(!late.complete);
    }
}
