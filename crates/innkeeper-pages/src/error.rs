//! Errors that end the program.

use std::io;
use std::path::PathBuf;

use innkeeper_model::{Code, Explain};
use innkeeper_service::ConfigError;

/// An error that ends the program.
#[derive(Debug, thiserror::Error)]
pub enum PagesError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The socket to listen on.
    #[error("cannot listen on {}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// The error of the system call.
        #[source]
        source: io::Error,
    },
    /// The runtime or a signal handler.
    #[error("cannot {action}")]
    System {
        /// The failed action.
        action: &'static str,
        /// The error of the system call.
        #[source]
        source: io::Error,
    },
}

impl Explain for PagesError {
    fn code(&self) -> Code {
        match self {
            Self::Config(error) => error.code(),
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Code::PermissionDenied
            }
            Self::Listen { .. } => Code::InvalidConfig,
            Self::System { .. } => Code::Internal,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.remedy(),
            Self::Listen { .. } => Some(
                "Start it with systemd, which passes the socket (`systemctl start innkeeper-pages.socket`), or set pages.socket to a path in a directory that this user can write to.".to_owned(),
            ),
            Self::System { .. } => None,
        }
    }
}
