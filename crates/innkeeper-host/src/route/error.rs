//! Errors of routes.

use std::io;
use std::path::PathBuf;

use innkeeper_facilities::FacilityError;
use innkeeper_model::{Code, Explain, GuestName, InvalidName};

use crate::FileError;

/// A route that cannot be rendered, written, loaded or removed.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// A file of the routes.
    #[error(transparent)]
    File(#[from] FileError),
    /// The slug has another meaning in the directory of the routes.
    #[error("'{slug}' cannot have a route: the name is reserved")]
    Reserved {
        /// The slug.
        slug: GuestName,
    },
    /// The name of an extra host is too long.
    #[error("the extra host '{prefix}' of preview '{slug}' has no valid name")]
    Host {
        /// The preview.
        slug: GuestName,
        /// The host's prefix.
        prefix: GuestName,
        /// The rule that the name violates.
        #[source]
        source: InvalidName,
    },
    /// The host belongs to another preview.
    #[error("host {host} of preview '{slug}' belongs to preview '{owner}'")]
    HostTaken {
        /// The preview that needs it.
        slug: GuestName,
        /// The host.
        host: String,
        /// The preview that has it.
        owner: String,
    },
    /// A file of the route's name is not managed by this daemon.
    #[error("{} exists and is not managed by this Innkeeper daemon", path.display())]
    ForeignFile {
        /// The file.
        path: PathBuf,
    },
    /// An object to be swept that [`observe`](innkeeper_facilities::Resource::observe) does not return.
    #[error("'{object}' is not managed by Innkeeper")]
    Foreign {
        /// The object to be swept.
        object: String,
    },
    /// Caddy does not respond.
    #[error("Caddy does not respond on {address}")]
    Unreachable {
        /// Its admin address.
        address: String,
        /// The error of the connection or the protocol.
        #[source]
        source: io::Error,
    },
    /// Caddy rejects a configuration.
    #[error("Caddy rejects {subject}: {message}")]
    Refused {
        /// The configuration's file or route.
        subject: String,
        /// Caddy's message.
        message: String,
    },
    /// Caddy loaded its configuration, but that does not include Innkeeper's.
    #[error(
        "Caddy runs without Innkeeper's routes: {} does not import {}/*.caddy",
        caddyfile.display(),
        directory.display()
    )]
    NotImported {
        /// Caddy's main file.
        caddyfile: PathBuf,
        /// The directory of the routes.
        directory: PathBuf,
    },
}

impl From<RouteError> for FacilityError {
    fn from(error: RouteError) -> Self {
        Self::new(error)
    }
}

impl Explain for RouteError {
    fn code(&self) -> Code {
        match self {
            Self::File(error) => error.code_or(Code::RouteFailed),
            // Codes that are not retried: only another name or configuration helps.
            Self::HostTaken { .. } => Code::SlugConflict,
            Self::Host { .. } => Code::PreviewConfigInvalid,
            _ => Code::RouteFailed,
        }
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::File(error) => return error.remedy(),
            Self::Reserved { .. } => "Use another slug for the preview (`--slug`).".to_owned(),
            Self::Host { .. } => {
                "Choose shorter prefixes in `extraHosts` of preview-config.nix, or a shorter slug (`--slug`)."
                    .to_owned()
            }
            Self::HostTaken { owner, .. } => format!(
                "Use another slug for the preview (`--slug`), or run `preview destroy {owner}` if that one is no longer needed."
            ),
            Self::ForeignFile { path } => format!(
                "Move {} away if it is not needed, or use another slug for the preview (`--slug`).",
                path.display()
            ),
            Self::Foreign { .. } => return None,
            Self::Unreachable { .. } => {
                "Start Caddy (`systemctl start caddy`) and check that its `admin` address is the one in Innkeeper's configuration."
                    .to_owned()
            }
            Self::Refused { .. } => {
                "Correct Caddy's configuration according to the message; `caddy validate` prints the same.".to_owned()
            }
            Self::NotImported {
                caddyfile,
                directory,
            } => format!(
                "Add the line `import {}/*.caddy` to {} and run `systemctl reload caddy`.",
                directory.display(),
                caddyfile.display()
            ),
        })
    }
}
