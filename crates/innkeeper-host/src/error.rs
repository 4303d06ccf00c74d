//! Failed file operations.

use std::io;
use std::path::{Path, PathBuf};

use innkeeper_model::Code;

/// A file operation that failed, with the file's name.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct FileError {
    /// The operation, such as `create` or `write`.
    pub action: &'static str,
    /// The file.
    pub path: PathBuf,
    /// The kernel's error.
    #[source]
    pub source: io::Error,
}

impl FileError {
    /// Returns the code for the kernel's error, or `otherwise`.
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

    /// Returns the remedy for a full disk or missing permissions.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        let path = self.path.display();
        Some(match self.code_or(Code::Internal) {
            Code::DiskFull => format!(
                "Free space on the disk that holds {path} (`agent list` shows guests that you may destroy), then try again."
            ),
            Code::PermissionDenied => {
                format!("Allow innkeeperd to write {path}; it normally runs as root.")
            }
            _ => return None,
        })
    }
}

/// Adds the operation and the file to an [`io::Error`].
pub trait FileErrorExt<T> {
    /// Adds the operation and the file to the error.
    ///
    /// # Errors
    /// The same failure as a [`FileError`].
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
