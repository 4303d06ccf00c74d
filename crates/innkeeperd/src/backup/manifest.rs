//! The manifest of a backup set: written last, so that a set without one is incomplete.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use innkeeper_facilities::FileOwners;
use innkeeper_host::tree::{Covers, TreeDigest};
use innkeeper_host::{FileError, FileErrorExt};
use innkeeper_model::{ClosureSource, GuestKind, GuestName, Slot, StorePath};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::BackupError;

/// The version of the set's layout. In version 1, the digests of files do not cover extended attributes, and the owners are
/// not recorded.
pub(super) const VERSION: u32 = 2;

/// The oldest version that can be restored.
const OLDEST: u32 = 1;

/// The longest manifest, in bytes: 100,000 guests have less.
const MAX_BYTES: u64 = 64 << 20;

/// The part of a manifest that all versions have.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// A guest with files in the set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SetGuest {
    pub(super) name: GuestName,
    pub(super) kind: GuestKind,
    pub(super) slot: Slot,
    pub(super) source: ClosureSource,
    pub(super) closure: Option<StorePath>,
    pub(super) files: Digest,
}

/// A preview's database in the set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SetDatabase {
    pub(super) preview: GuestName,
    pub(super) dump: Digest,
}

/// The digest of a tree or file in the set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Digest {
    pub(super) sha256: String,
    pub(super) bytes: u64,
}

impl From<TreeDigest> for Digest {
    fn from(digest: TreeDigest) -> Self {
        let TreeDigest { sha256, bytes, .. } = digest;
        Self { sha256, bytes }
    }
}

/// The manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) version: u32,
    /// The version of the daemon that wrote the set.
    pub(super) innkeeper: String,
    /// The name of its host.
    pub(super) host: String,
    pub(super) created_at: Timestamp,
    /// The owners of the guests' files. `None` in version 1.
    #[serde(default)]
    pub(super) owners: Option<FileOwners>,
    pub(super) store: Digest,
    pub(super) guests: Vec<SetGuest>,
    pub(super) databases: Vec<SetDatabase>,
    /// Whether the set has the guests' closures.
    pub(super) closures: bool,
    /// The files and databases that could not be copied, for people.
    pub(super) missing: Vec<String>,
}

impl Manifest {
    /// Reads and checks the manifest of a set.
    pub(super) fn read(set: &Set) -> Result<Self, BackupError> {
        let path = set.manifest();
        let text = match read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BackupError::Incomplete { set: set.0.clone() });
            }
            text => text.on("read", &path)?,
        };
        let invalid = |problem: String| BackupError::Manifest {
            path: path.clone(),
            problem,
        };
        let Version { version } =
            serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
        if !(OLDEST..=VERSION).contains(&version) {
            return Err(invalid(format!(
                "the set has version {version}, and this Innkeeper reads the versions {OLDEST} to {VERSION}"
            )));
        }
        serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))
    }

    /// Returns the parts of guests' files that the digests cover.
    pub(super) fn covers(&self) -> Covers {
        match self.version {
            1 => Covers::Files,
            _ => Covers::Attributes,
        }
    }

    /// Writes the manifest of a set. It is on disk afterwards, with everything before it.
    pub(super) fn write(&self, set: &Set) -> Result<(), FileError> {
        innkeeper_host::tree::write_to_disk(&set.0)?;
        let path = set.manifest();
        let write = || {
            let mut text = serde_json::to_vec_pretty(self)?;
            text.push(b'\n');
            let mut options = File::options();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            file.write_all(&text)?;
            file.sync_all()
        };
        write().on("write", &path)?;
        innkeeper_host::tree::write_to_disk(&set.0)
    }
}

/// Reads a regular file of limited length.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let seen = fs::symlink_metadata(path)?;
    if !seen.is_file() || seen.len() > MAX_BYTES {
        let problem = "not a regular file, or too long";
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    let mut text = Vec::new();
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut text)?;
    Ok(text)
}

/// The paths in a set.
#[derive(Clone, Debug)]
pub(super) struct Set(pub(super) PathBuf);

impl Set {
    pub(super) fn manifest(&self) -> PathBuf {
        self.0.join("manifest.json")
    }

    pub(super) fn store(&self) -> PathBuf {
        self.0.join("innkeeper.db")
    }

    pub(super) fn closures(&self) -> PathBuf {
        self.0.join("closures")
    }

    pub(super) fn guests(&self) -> PathBuf {
        self.0.join("guests")
    }

    /// The directory of one guest. Its files are below `rootfs`, since the owner of a guest's top directory can be a guest's.
    pub(super) fn guest(&self, guest: &GuestName) -> PathBuf {
        self.guests().join(guest.as_str())
    }

    pub(super) fn files(&self, guest: &GuestName) -> PathBuf {
        self.guest(guest).join("rootfs")
    }

    pub(super) fn databases(&self) -> PathBuf {
        self.0.join("databases")
    }

    pub(super) fn dump(&self, preview: &GuestName) -> PathBuf {
        self.databases().join(format!("{preview}.dump"))
    }

    pub(super) fn password(&self, preview: &GuestName) -> PathBuf {
        self.databases().join(format!("{preview}.password"))
    }

    /// Fails if a directory of the set is a link or missing: nothing outside of the set is read.
    pub(super) fn require_directories(&self, manifest: &Manifest) -> Result<(), BackupError> {
        let mut directories = vec![self.0.clone()];
        if !manifest.guests.is_empty() {
            directories.push(self.guests());
        }
        if !manifest.databases.is_empty() {
            directories.push(self.databases());
        }
        if manifest.closures {
            directories.push(self.closures());
        }
        directories.extend(manifest.guests.iter().map(|guest| self.guest(&guest.name)));
        directories.extend(manifest.guests.iter().map(|guest| self.files(&guest.name)));
        for path in directories {
            let seen = fs::symlink_metadata(&path).on("inspect", &path)?;
            if !seen.is_dir() {
                return Err(BackupError::NoDirectory { path });
            }
        }
        Ok(())
    }
}
