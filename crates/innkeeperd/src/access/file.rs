//! Files that `innkeeper-gateway` reads: only root and the gateway's group can.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use innkeeper_host::{FileError, FileErrorExt};
use nix::unistd::Gid;
use serde::Serialize;

use crate::socket::group_id;

/// A file for the gateway.
#[derive(Clone, Debug)]
pub(crate) struct PublishedFile {
    pub(super) path: PathBuf,
    /// The gateway's group. `None` when it does not exist: only root may read the file then.
    pub(super) group: Option<Gid>,
}

impl PublishedFile {
    /// Returns the file at a path, for a group.
    pub(crate) fn new(path: PathBuf, group: &str) -> Self {
        Self {
            path,
            group: group_id(group),
        }
    }

    /// Replaces the file, atomically.
    ///
    /// # Errors
    /// When it cannot be written. The former one stays.
    pub(crate) fn publish(&self, contents: &impl Serialize) -> Result<(), FileError> {
        let text = serde_json::to_vec(contents)
            .map_err(io::Error::from)
            .on("write", &self.path)?;
        self.prepare_directory()?;
        let temporary = self.path.with_extension("new");
        self.write(&temporary, &text).on("write", &temporary)?;
        fs::rename(&temporary, &self.path).on("rename", &temporary)
    }

    /// Removes the file, if there is one.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(crate) fn withdraw(&self) -> Result<(), FileError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).on("remove", &self.path)
            }
            _ => Ok(()),
        }
    }

    /// Creates the file's directory, which the group can enter.
    fn prepare_directory(&self) -> Result<(), FileError> {
        let Some(directory) = self.path.parent() else {
            return Ok(());
        };
        let mode = if self.group.is_some() { 0o750 } else { 0o700 };
        let mut builder = DirBuilder::new();
        let created = builder.recursive(true).mode(0o700).create(directory);
        created.on("create", directory)?;
        let opened = File::open(directory).on("open", directory)?;
        self.give(&opened, mode).on("set permissions of", directory)
    }

    fn write(&self, path: &Path, text: &[u8]) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = File::options();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(text)?;
        let mode = if self.group.is_some() { 0o640 } else { 0o600 };
        self.give(&file, mode)
    }

    /// Gives a file or directory to the group, then sets its mode.
    fn give(&self, file: &File, mode: u32) -> io::Result<()> {
        if let Some(group) = self.group {
            fchown(file, None, Some(group.as_raw()))?;
        }
        file.set_permissions(Permissions::from_mode(mode))
    }
}
