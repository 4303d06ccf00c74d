//! Failed file operations.

use std::io;
use std::path::{Path, PathBuf};

use innkeeper_model::Code;

/// A file operation that failed, with the file's name.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct FileError {
    /// What was tried, such as `create` or `write`.
    pub action: &'static str,
    /// On which file.
    pub path: PathBuf,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

impl FileError {
    /// The code that follows from what the kernel said, or `otherwise`.
    #[must_use]
    pub fn code_or(&self, otherwise: Code) -> Code {
        match self.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::DiskFull,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Code::PermissionDenied
            }
            _ => otherwise,
        }
    }

    /// What to do about it, where the kernel's answer tells.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        let path = self.path.display();
        Some(match self.code_or(Code::Internal) {
            Code::DiskFull => format!(
                "Free space on the disk that holds {path} (`agent list` shows guests that may go), then try again."
            ),
            Code::PermissionDenied => {
                format!("Give innkeeperd the right to write {path}; it normally runs as root.")
            }
            _ => return None,
        })
    }
}

/// Adds the file's name to an [`io::Error`].
pub trait FileErrorExt<T> {
    /// Says what was tried on which file.
    ///
    /// # Errors
    /// The same failure, with the name.
    fn on(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, FileError>;
}

impl<T, E: Into<io::Error>> FileErrorExt<T> for Result<T, E> {
    fn on(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, FileError> {
        self.map_err(|source| FileError {
            action,
            path: path.as_ref().to_owned(),
            source: source.into(),
        })
    }
}
