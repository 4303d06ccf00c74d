//! How much of a disk a tree takes that a guest wrote.

use std::path::Path;
use std::time::Instant;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, openat, openat2, statat,
};
use rustix::io::Errno;

use crate::FileError;
use crate::tree::remove::failed;

/// Directories that are open at once at most. Deeper ones are not counted.
const DEPTH: usize = 200;

/// What a tree takes of its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in blocks, not lengths of files. A file with several names is counted once in all.
    pub bytes: u64,
    /// Files, directories, links and the like.
    pub inodes: u64,
    /// Whether everything was counted.
    pub complete: bool,
}

/// Counts what is below a directory until the deadline. Follows no link, crosses no mount point and opens nothing but
/// directories. Entries that go away meanwhile are not counted.
///
/// # Errors
/// When the directory itself cannot be opened.
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
        let Ok(at) = directory.fd() else { continue };
        let Ok(found) = statat(at, name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        let is_directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        let names = if is_directory {
            1
        } else {
            found.st_nlink.max(1)
        };
        usage.bytes += u64::try_from(found.st_blocks).unwrap_or(0) * 512 / names;
        usage.inodes += 1;
        if is_directory {
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
            let below = openat2(at, name, flags, Mode::empty(), resolve).and_then(Dir::new);
            match below {
                Ok(below) if open.len() < DEPTH => open.push(below),
                // Something is mounted there, which is not the tree's.
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
    fn what_is_in_a_tree_is_counted_and_what_links_lead_to_is_not() {
        let outside = tempfile::tempdir().expect("a folder");
        fs::write(outside.path().join("large"), vec![1; 4 << 20]).expect("written");
        let tree = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(tree.path().join("a/b")).expect("made");
        fs::write(tree.path().join("a/b/file"), vec![1; 1 << 20]).expect("written");
        fs::hard_link(tree.path().join("a/b/file"), tree.path().join("name")).expect("linked");
        std::os::unix::fs::symlink(outside.path(), tree.path().join("out")).expect("linked");
        rustix::fs::mknodat(CWD, tree.path().join("fifo"), FileType::Fifo, Mode::RUSR, 0)
            .expect("a FIFO, which nobody must open");

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
    fn a_deep_tree_and_a_deadline_end_the_count() {
        let tree = tempfile::tempdir().expect("a folder");
        let deep = vec!["d"; 2 * DEPTH].join("/");
        fs::create_dir_all(tree.path().join(deep)).expect("made");
        let counted = usage(tree.path(), soon()).expect("counted");
        assert_eq!((counted.inodes, counted.complete), (200, false));
        let late = usage(tree.path(), Instant::now()).expect("counted");
        assert!(!late.complete);
    }
}
