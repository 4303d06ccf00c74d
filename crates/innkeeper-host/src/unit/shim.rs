//! The embedded shim, installed where it can be bound into guests.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::{FileError, FileErrorExt};

/// `innkeeper-shim`, built statically by `build.rs`.
const PROGRAM: &[u8] = include_bytes!(env!("INNKEEPER_SHIM"));

/// A file, independent of its name and mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// Returns the file of a path.
    pub(super) fn of(path: impl AsRef<Path>) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

/// `<run>/shim`: the shim under the hash of its content. A guest keeps the one that it was started with, so those of
/// earlier versions stay until the host reboots.
#[derive(Clone, Debug)]
pub(super) struct Shim {
    dir: PathBuf,
    path: PathBuf,
}

impl Shim {
    /// Installs the embedded shim unless it is installed already.
    pub(super) fn install(runtime_dir: &Path) -> Result<Self, FileError> {
        let dir = runtime_dir.join("shim");
        let hash = Sha256::digest(PROGRAM);
        let name: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let path = dir.join(name);
        let shim = Self { dir, path };
        if !shim.is_whole() {
            shim.write()?;
        }
        Ok(shim)
    }

    /// The program.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reports whether a file is the shim, of this or an earlier version.
    pub(super) fn is(&self, file: FileId) -> bool {
        let Ok(entries) = fs::read_dir(&self.dir) else {
            return false;
        };
        entries
            .filter_map(Result::ok)
            .any(|entry| FileId::of(entry.path()).is_ok_and(|id| id == file))
    }

    /// Reports whether the file is complete. A power loss may truncate it.
    fn is_whole(&self) -> bool {
        fs::read(&self.path).is_ok_and(|content| content == PROGRAM)
    }

    fn write(&self) -> Result<(), FileError> {
        fs::create_dir_all(&self.dir).on("create", &self.dir)?;
        // Two daemons that start at once must not write into the same file.
        let aside = self
            .path
            .with_extension(format!("new-{}", std::process::id()));
        File::create(&aside)
            .and_then(|mut file| file.write_all(PROGRAM))
            .on("write", &aside)?;
        fs::set_permissions(&aside, Permissions::from_mode(0o555)).on("make executable", &aside)?;
        fs::rename(&aside, &self.path).on("rename", &aside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shim_is_installed_once_and_repaired() {
        let run = tempfile::tempdir().expect("a directory");
        let first = Shim::install(run.path()).expect("installed");
        let id = FileId::of(first.path()).expect("there");
        let again = Shim::install(run.path()).expect("installed again");
        assert_eq!(
            FileId::of(again.path()).expect("there"),
            id,
            "it was replaced"
        );
        assert!(again.is(id));
        assert!(!again.is(FileId::of("/proc/self/exe").expect("ourselves")));
        fs::write(first.path(), "half").expect("damaged");
        let repaired = Shim::install(run.path()).expect("installed again");
        assert_eq!(fs::read(repaired.path()).expect("there"), PROGRAM);
        let mode = fs::metadata(repaired.path())
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o555);
        assert_eq!(
            fs::read_dir(run.path().join("shim"))
                .expect("a directory")
                .count(),
            1
        );
    }
}
