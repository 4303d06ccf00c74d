//! Directories that are held open.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, a socket or a named pipe.
    Other,
}

impl From<std::fs::FileType> for Kind {
    fn from(kind: std::fs::FileType) -> Self {
        if kind.is_file() {
            Self::File
        } else if kind.is_dir() {
            Self::Directory
        } else if kind.is_symlink() {
            Self::Link
        } else {
            Self::Other
        }
    }
}

/// A directory that is held open. Its methods take single components of a path, and follow no symbolic link.
///
/// # Errors
/// All methods return the error of the operating system. A symbolic link is an error where a file or a directory is expected.
pub trait Dir: Sized {
    /// Holds a directory that has been opened.
    fn new(directory: File) -> Self;

    /// Returns the directory itself.
    fn file(&self) -> &File;

    /// Returns the names in the directory, in no particular order.
    fn names(&self) -> io::Result<Vec<OsString>>;

    /// Returns the kind of a file.
    fn kind(&self, name: &OsStr) -> io::Result<Kind>;

    /// Opens a subdirectory.
    fn open_dir(&self, name: &OsStr) -> io::Result<Self>;

    /// Opens a file to read it. Does not wait for the other side of a named pipe.
    fn open_file(&self, name: &OsStr) -> io::Result<File>;

    /// Returns the target of a symbolic link.
    fn link_target(&self, name: &OsStr) -> io::Result<PathBuf>;

    /// Creates a subdirectory that only its owner may use.
    fn create_dir(&self, name: &OsStr) -> io::Result<()>;

    /// Creates a file that only its owner may use, and opens it to write it. Fails if the name exists.
    fn create_file(&self, name: &OsStr) -> io::Result<File>;

    /// Creates a symbolic link.
    fn create_link(&self, target: &Path, name: &OsStr) -> io::Result<()>;

    /// Renames a file, and replaces another file of the new name.
    fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()>;

    /// Removes a file that is not a directory.
    fn remove(&self, name: &OsStr) -> io::Result<()>;
}
