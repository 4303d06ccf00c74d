//! Errors that end the daemon.

use std::io;

use innkeeper_engine::EngineError;
use innkeeper_facilities::FacilityError;
use innkeeper_host::FileError;
use innkeeper_host::features::FeatureError;
use innkeeper_model::{Code, Explain, SlotBounds};
use innkeeper_store::StoreError;

use crate::config::ConfigError;
use crate::lock::LockError;
use crate::registry::RegistryError;

/// An error that ends the daemon.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another daemon in the same state directory.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The same, with the settings in conflict.
    #[error("{held}; both are configured to use {shared}")]
    Held {
        /// The error without the settings.
        held: LockError,
        /// The settings with their values.
        shared: String,
        /// The suggested values.
        remedy: String,
    },
    /// Another daemon of the host uses a resource that this one is configured to use.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Guests have slots outside of the configured range.
    #[error("network.slots is \"{bounds}\", but guests have slots outside of it: {slots}")]
    Slots {
        /// The configured slots.
        bounds: SlotBounds,
        /// The guests' slots outside of it.
        slots: String,
    },
    /// A file or a socket.
    #[error(transparent)]
    File(#[from] FileError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The kernel.
    #[error(transparent)]
    Features(#[from] FeatureError),
    /// A resource of the host.
    #[error(transparent)]
    Host(#[from] FacilityError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The requirements of previews: the files with credentials, GitHub's address.
    #[error("{0}")]
    Previews(innkeeper_model::Failure),
    /// The runtime, a signal handler, the server.
    #[error("cannot {action}")]
    System {
        /// The failed action.
        action: &'static str,
        /// The error of the system call.
        #[source]
        source: io::Error,
    },
}

impl Explain for DaemonError {
    fn code(&self) -> Code {
        match self {
            Self::Config(error) => error.code(),
            Self::Lock(LockError::Held { .. }) | Self::Held { .. } => Code::StateLocked,
            Self::Registry(RegistryError::File(error)) => error.code_or(Code::Internal),
            Self::Registry(_) => Code::DaemonConflict,
            Self::Slots { .. } => Code::InvalidConfig,
            Self::Lock(LockError::File(error)) | Self::File(error) => error.code_or(Code::Internal),
            Self::Store(error) => error.code(),
            Self::Features(error) => error.code(),
            Self::Host(error) => error.code(),
            Self::Engine(error) => error.code(),
            Self::Previews(failure) => failure.code,
            Self::System { .. } => Code::Internal,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.remedy(),
            Self::Lock(LockError::Held { .. }) => Some(
                "Stop it first. A second daemon needs a state_dir of its own, and further settings: docs/configuration.md, \"Several daemons on one host\".".to_owned(),
            ),
            Self::Held { remedy, .. } => Some(format!("Stop it first. To run a second daemon instead: {remedy}")),
            Self::Registry(error) => error.remedy(),
            Self::Slots { slots, .. } => Some(format!(
                "Set network.slots so that it contains {slots}, or set it back, destroy these guests (`agent list` shows their slots' addresses), and then change it."
            )),
            Self::Lock(LockError::File(error)) | Self::File(error) => error.remedy(),
            Self::Store(error) => error.remedy(),
            Self::Features(error) => error.remedy(),
            Self::Host(error) => error.remedy(),
            Self::Engine(error) => error.remedy(),
            Self::Previews(failure) => failure.remedy.clone(),
            Self::System { .. } => None,
        }
    }
}
