//! What can go wrong with a route.

use std::io;
use std::path::PathBuf;

use innkeeper_facilities::FacilityError;
use innkeeper_model::{Code, Explain, GuestName, InvalidName};

use crate::FileError;

/// A route that could not be rendered, written, put into force or removed.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// A file of the routes.
    #[error(transparent)]
    File(#[from] FileError),
    /// The slug means something else in the directory of the routes.
    #[error("'{slug}' cannot have a route: that name is reserved")]
    Reserved {
        /// The slug.
        slug: GuestName,
    },
    /// The name of an extra host is too long.
    #[error("the extra host '{prefix}' of preview '{slug}' has no name")]
    Host {
        /// The preview.
        slug: GuestName,
        /// The host's prefix.
        prefix: GuestName,
        /// Which rule the name would break.
        #[source]
        source: InvalidName,
    },
    /// Another preview has the host.
    #[error("host {host} of preview '{slug}' belongs to preview '{owner}'")]
    HostTaken {
        /// The preview that wants it.
        slug: GuestName,
        /// The host.
        host: String,
        /// The preview that has it.
        owner: String,
    },
    /// A file with the route's name was not written by us.
    #[error("{} was not written by Innkeeper", path.display())]
    ForeignFile {
        /// The file.
        path: PathBuf,
    },
    /// Something that was not found by [`observe`](innkeeper_facilities::Resource::observe) was to be swept.
    #[error("'{object}' is nothing of ours")]
    Foreign {
        /// What was to be swept.
        object: String,
    },
    /// Caddy could not be asked.
    #[error("Caddy does not answer on {address}")]
    Unreachable {
        /// Its admin address, or the one on which it looks routes up.
        address: String,
        /// What the kernel or the protocol said.
        #[source]
        source: io::Error,
    },
    /// Caddy refused a configuration.
    #[error("Caddy does not take {what}: {said}")]
    Refused {
        /// What it was given.
        what: String,
        /// What it said.
        said: String,
    },
    /// Caddy took its configuration and our part is not in it.
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
            // What only another name or another configuration mends is not tried again.
            Self::HostTaken { .. } => Code::SlugConflict,
            Self::Host { .. } => Code::PreviewConfigInvalid,
            _ => Code::RouteFailed,
        }
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::File(error) => return error.remedy(),
            Self::Reserved { .. } => "Give the preview another slug (`--slug`).".to_owned(),
            Self::Host { .. } => {
                "Choose shorter prefixes in `extraHosts` of preview-config.nix, or a shorter slug (`--slug`)."
                    .to_owned()
            }
            Self::HostTaken { owner, .. } => format!(
                "Give the preview another slug (`--slug`), or run `preview destroy {owner}` if that one is no longer needed."
            ),
            Self::ForeignFile { path } => format!(
                "Move {} away if nothing needs it, or give the preview another slug (`--slug`).",
                path.display()
            ),
            Self::Foreign { .. } => return None,
            Self::Unreachable { .. } => {
                "Start Caddy (`systemctl start caddy`) and see that its `admin` address is the one in Innkeeper's configuration."
                    .to_owned()
            }
            Self::Refused { .. } => {
                "Correct Caddy's configuration where the message says; `caddy validate` tells the same.".to_owned()
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
