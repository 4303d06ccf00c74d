//! Filters on the disk, and the files that they depend on.
//!
//! ```text
//! innkeeper-filters 1      the format
//! <sha256>                 of everything below
//! <JSON>                   the key, and the program files of nspawn
//! <list>                   the filters, encoded for the shim
//! ```

use std::fs::{self, File};
use std::io::{Read as _, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::List;
use crate::{FileError, FileErrorExt};

const FORMAT: &[u8] = b"innkeeper-filters 1\n";

/// The maximum size of a file. The kernel's limit for the filters of a process is a quarter of it.
const MAX_LEN: u64 = 1 << 20;

/// Libraries that nspawn may load while it compiles, and no earlier.
const LOADED_LATE: &str = "libseccomp.so";

/// Selects the libraries of programs.
const LOADER: [&str; 2] = ["/etc/ld.so.cache", "/etc/ld.so.preload"];

/// Filters as they were read.
#[derive(Debug)]
pub(in super::super) struct Read {
    /// The filters, encoded for the shim.
    pub(in super::super) list: Vec<u8>,
    /// nspawn, as it was started, and the programs and libraries that then ran. The former may be a link to one of the latter,
    /// or a script.
    pub(in super::super) files: Vec<PathBuf>,
    /// The time before nspawn was started.
    pub(in super::super) began: SystemTime,
}

/// Filters with the files that they depend on.
#[derive(Debug)]
pub(super) struct Stored {
    header: Header,
    list: List,
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    key: String,
    files: Vec<(PathBuf, Option<Stamp>)>,
}

/// The identity of a file's contents. Whoever changes the contents changes the last number, which cannot be set.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Returns `None` for a missing file.
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// Reports whether the file was changed at or after a time.
    fn is_newer(&self, time: SystemTime) -> bool {
        let time = time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        let changed = Duration::new(
            u64::try_from(self.changed.0).unwrap_or(0),
            u32::try_from(self.changed.1).unwrap_or(0),
        );
        changed >= time
    }
}

impl Stored {
    /// Fails if a file was changed while the filters were read: they may be those of its former contents.
    pub(super) fn new(key: &str, read: Read) -> Result<Self, String> {
        let files = dependencies(read.files);
        let changed = files.iter().find(|(_, stamp)| {
            stamp
                .as_ref()
                .is_some_and(|stamp| stamp.is_newer(read.began))
        });
        if let Some((path, _)) = changed {
            return Err(format!("{} was changed meanwhile", path.display()));
        }
        Ok(Self {
            header: Header {
                key: key.to_owned(),
                files,
            },
            list: read.list.into(),
        })
    }

    /// Reads a file; `None` if it is missing, damaged, another version's or outdated.
    pub(super) fn load(file: &Path, key: &str) -> Option<Self> {
        let mut bytes = Vec::new();
        File::open(file)
            .ok()?
            .take(MAX_LEN)
            .read_to_end(&mut bytes)
            .ok()?;
        let (hash, rest) = line(bytes.strip_prefix(FORMAT)?)?;
        if hash != hex(&Sha256::digest(rest)).as_bytes() {
            return None;
        }
        let (header, list) = line(rest)?;
        let stored = Self {
            header: serde_json::from_slice(header).ok()?,
            list: list.into(),
        };
        (stored.header.key == key && stored.is_current()).then_some(stored)
    }

    /// Writes a file that only root can read, atomically. Without fsync: a damaged file is detected.
    pub(super) fn save(&self, file: &Path) -> Result<(), FileError> {
        let aside = file.with_added_extension(format!("new-{}", std::process::id()));
        let write = || {
            let mut rest = serde_json::to_vec(&self.header)?;
            rest.push(b'\n');
            rest.extend(self.list.iter());
            let hash = hex(&Sha256::digest(&rest));
            let mut written = File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&aside)?;
            written.write_all(&[FORMAT, hash.as_bytes(), b"\n", &rest].concat())
        };
        write().on("write", &aside)?;
        fs::rename(&aside, file).on("rename", &aside)
    }

    /// Reports whether no file has changed since the filters were read.
    pub(super) fn is_current(&self) -> bool {
        self.header
            .files
            .iter()
            .all(|(path, stamp)| Stamp::of(path) == *stamp)
    }

    pub(super) fn list(&self) -> List {
        Arc::clone(&self.list)
    }
}

fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// Returns the files that decide what nspawn compiles: its program and libraries, those that it loads only then, and the
/// loader's, which select them.
fn dependencies(mut files: Vec<PathBuf>) -> Vec<(PathBuf, Option<Stamp>)> {
    let mut dirs: Vec<_> = files
        .iter()
        .filter_map(|file| file.parent().map(Path::to_owned))
        .collect();
    dirs.sort();
    dirs.dedup();
    for entry in dirs
        .iter()
        .filter_map(|dir| fs::read_dir(dir).ok())
        .flatten()
        .filter_map(Result::ok)
    {
        if entry.file_name().to_string_lossy().starts_with(LOADED_LATE) {
            files.push(entry.path());
        }
    }
    files.extend(LOADER.map(PathBuf::from));
    files.sort();
    files.dedup();
    files
        .into_iter()
        .map(|file| {
            let stamp = Stamp::of(&file);
            (file, stamp)
        })
        .collect()
}

/// Returns bytes in hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_program_makes_filters_outdated() {
        let dir = tempfile::tempdir().expect("a directory");
        let (nspawn, library) = (
            dir.path().join("nspawn"),
            dir.path().join("libseccomp.so.2"),
        );
        for file in [&nspawn, &library] {
            fs::write(file, "1").expect("written");
        }
        let read = |began| Read {
            list: b"list".to_vec(),
            files: vec![nspawn.clone()],
            began,
        };
        // The kernel's clock of files has a coarser resolution.
        let later = SystemTime::now() + Duration::from_secs(1);
        let cached = dir.path().join("cached");
        for file in [&nspawn, &library] {
            let stored = Stored::new("key", read(later)).expect("unchanged");
            stored.save(&cached).expect("saved");
            assert!(Stored::load(&cached, "key").is_some());
            assert!(Stored::load(&cached, "other").is_none());
            // The same size, as after an update of a package.
            fs::write(dir.path().join("new"), "2").expect("written");
            fs::rename(dir.path().join("new"), file).expect("replaced");
            assert!(!stored.is_current(), "{}", file.display());
            assert!(Stored::load(&cached, "key").is_none());
        }
        let error = Stored::new("key", read(SystemTime::UNIX_EPOCH)).expect_err("just changed");
        assert!(error.contains("changed meanwhile"), "{error}");
    }

    #[test]
    fn stored_filters_are_readable_by_root_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let read = Read {
            list: b"list".to_vec(),
            files: Vec::new(),
            began: SystemTime::now() + Duration::from_secs(1),
        };
        let file = dir.path().join("cached");
        Stored::new("key", read)
            .and_then(|stored| stored.save(&file).map_err(|error| error.to_string()))
            .expect("saved");
        let mode = fs::metadata(&file).expect("there").mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
