//! Errors that end the program.

use std::io;
use std::path::PathBuf;

use innkeeper_model::{Code, Explain};
use innkeeper_service::ConfigError;

use crate::access::key::KeyError;
use crate::pairs::PairsError;

/// An error that ends the program.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The tokens that another program manages.
    #[error(transparent)]
    Pairs(#[from] PairsError),
    /// The key of another program's cookies.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The configuration does not enable the gateway.
    #[error("the gateway is not enabled: gateway.enabled is false")]
    Disabled,
    /// The socket for Caddy.
    #[error("cannot listen on {}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// The error of the system call.
        #[source]
        source: io::Error,
    },
    /// The address of the metrics.
    #[error("cannot listen on {address}, for the metrics")]
    Metrics {
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

impl Explain for GatewayError {
    fn code(&self) -> Code {
        match self {
            Self::Config(error) => error.code(),
            Self::Pairs(error) => error.code(),
            Self::Key(error) => error.code(),
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Code::PermissionDenied
            }
            Self::Disabled | Self::Listen { .. } | Self::Metrics { .. } => Code::InvalidConfig,
            Self::System { .. } => Code::Internal,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.remedy(),
            Self::Pairs(error) => error.remedy(),
            Self::Key(error) => error.remedy(),
            Self::Disabled => Some(
                "Set gateway.enabled to true in the configuration, then restart innkeeperd and this program.".to_owned(),
            ),
            Self::Listen { .. } => Some(
                "Start it with systemd, which passes the socket (`systemctl start innkeeper-gateway.socket`). Without systemd, set gateway.socket to a path in a directory that this user can write to, and gateway.socket_group to a group of Caddy's that this user is a member of.".to_owned(),
            ),
            Self::Metrics { .. } => Some(
                "`ss -ltnp` shows which program uses the port; choose another one with gateway.metrics_listen, or \"\" for none.".to_owned(),
            ),
            Self::System { .. } => None,
        }
    }
}
