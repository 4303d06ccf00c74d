//! The errors of this crate.

use std::io;
use std::path::{Path, PathBuf};

use innkeeper_model::{Code, Explain};

use crate::closure::ClosureError;
use crate::database::DatabaseError;
use crate::evaluate::EvaluateError;
use crate::firewall::FirewallError;
use crate::network::NetworkError;
use crate::rootfs::RootfsError;
use crate::route::RouteError;
use crate::secrets::SecretsError;
use crate::unit::UnitError;

/// Anything that can go wrong with a resource.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A closure or its GC root.
    #[error(transparent)]
    Closure(#[from] ClosureError),
    /// A preview's closure, from a repository's preview-config.nix.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// A guest's file tree.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// A guest's keys and credentials.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// A guest's network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The firewall.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    /// A guest's processes.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// A preview's route.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// A preview's database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl HostError {
    fn inner(&self) -> &dyn Explain {
        match self {
            Self::Closure(error) => error,
            Self::Evaluate(error) => error,
            Self::Rootfs(error) => error,
            Self::Secrets(error) => error,
            Self::Network(error) => error,
            Self::Firewall(error) => error,
            Self::Unit(error) => error,
            Self::Route(error) => error,
            Self::Database(error) => error,
        }
    }
}

impl Explain for HostError {
    fn code(&self) -> Code {
        self.inner().code()
    }

    fn remedy(&self) -> Option<String> {
        self.inner().remedy()
    }

    fn log(&self) -> &[String] {
        self.inner().log()
    }
}

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
