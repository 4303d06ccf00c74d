//! Errors that end the program.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use innkeeper_model::{Code, Explain};
use innkeeper_service::ConfigError;

/// An error that ends the program.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address to listen on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The error of the system call.
        #[source]
        source: io::Error,
    },
    /// The file that reports that the program listens.
    #[error("cannot write {}", path.display())]
    Report {
        /// The file.
        path: PathBuf,
        /// The error of the system call.
        #[source]
        source: io::Error,
    },
    /// A task that should not end.
    #[error("the resolver has ended, because of a defect")]
    Ended,
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

impl Explain for DnsError {
    fn code(&self) -> Code {
        match self {
            Self::Config(error) => error.code(),
            Self::Listen { source, .. } | Self::Report { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Code::PermissionDenied
            }
            Self::Listen { .. } | Self::Report { .. } => Code::InvalidConfig,
            Self::Ended | Self::System { .. } => Code::Internal,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.remedy(),
            Self::Listen { .. } => Some(
                "Set dns.port to a port above 1023 that no other program uses, or to 0 for no resolver, and restart innkeeper-dns and innkeeper.".to_owned(),
            ),
            Self::Report { .. } => Some(
                "Start it with systemd (`systemctl start innkeeper-dns`), which creates the directory, or set dns.directory to a directory that this user can write to.".to_owned(),
            ),
            Self::Ended | Self::System { .. } => None,
        }
    }
}
