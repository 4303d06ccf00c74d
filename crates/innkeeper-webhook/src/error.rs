//! Errors that end the program.

use std::io;

use innkeeper_github::SecretFileError;
use innkeeper_github::signature::SecretSetError;
use innkeeper_model::{Code, Explain};
use innkeeper_service::ConfigError;

/// An error that ends the program.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The secrets.
    #[error(transparent)]
    Secrets(#[from] SecretSetError),
    /// A file of the contract that may contain the list of repositories.
    #[error("cannot determine the allowed repositories")]
    Repositories(#[source] SecretFileError),
    /// The address to listen on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: String,
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

impl Explain for WebhookError {
    fn code(&self) -> Code {
        match self {
            Self::Config(error) => error.code(),
            Self::Secrets(error) => error.code(),
            Self::Repositories(error) => error.code(),
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
            Self::Secrets(error) => error.remedy(),
            Self::Repositories(_) => Some(
                "Set webhook.allowed_repos in the configuration ([] for all), or make that file readable for this program's user.".to_owned(),
            ),
            Self::Listen { .. } => Some(
                "`ss -ltnp` shows which program uses the port; choose another one with webhook.listen.".to_owned(),
            ),
            Self::System { .. } => None,
        }
    }
}
