//! Errors of closures.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use innkeeper_facilities::FacilityError;
use innkeeper_model::{Code, Explain, Installable, StorePath};

use super::shared::DatabaseError;
use crate::{CommandError, FileError};

/// A closure that cannot be built, used, or protected by a GC root.
#[derive(Debug, thiserror::Error)]
pub enum ClosureError {
    /// The store path does not exist.
    #[error("the closure {0} does not exist on this host")]
    NotFound(StorePath),
    /// Guests cannot boot from the closure.
    #[error("guests cannot boot from {closure}: {reason}")]
    Invalid {
        /// The closure.
        closure: StorePath,
        /// Cause of the rejection.
        reason: String,
    },
    /// The closure's `init` is empty: the power was lost before its contents were on disk.
    #[error("the closure {0} is damaged: its 'init' is empty, as after a power loss")]
    Emptied(StorePath),
    /// The build has no output `out`.
    #[error("guests cannot boot from '{0}': it has no output 'out'")]
    NoOutput(Installable),
    /// Nix cannot be started.
    #[error("cannot build '{installable}'")]
    Nix {
        /// The flake output.
        installable: Installable,
        /// The error of the start.
        #[source]
        source: CommandError,
    },
    /// The directory of a local flake, or `flake.nix` in it, does not exist. For other flakes Nix reports this only in a
    /// message for people: that is [`Self::Build`].
    #[error("no flake in '{flake}': {reason}")]
    FlakeNotFound {
        /// The flake reference.
        flake: String,
        /// The missing part.
        reason: &'static str,
    },
    /// The flake has no such output.
    #[error("the flake '{}' has no output '{}'", .0.flake(), .0.attribute())]
    OutputNotFound(Installable),
    /// The build failed.
    #[error("cannot build '{installable}': {summary}")]
    Build {
        /// The flake output.
        installable: Installable,
        /// Nix's error in one line.
        summary: String,
        /// The last lines of the build's log and of Nix's errors.
        log: Vec<String>,
    },
    /// Nix printed something unexpected.
    #[error("cannot parse Nix's output for '{installable}'")]
    InvalidOutput {
        /// The flake output.
        installable: Installable,
        /// The parse error.
        #[source]
        source: serde_json::Error,
    },
    /// A flake on the host, requested by a caller who is not root.
    #[error("only root may build from '{}', which is not a remote flake", .0.flake())]
    LocalFlake(Installable),
    /// A flake with an input on the host, requested by a caller who is not root.
    #[error("only root may build from '{}': its input '{input}' is {reference}, which is not remote", .installable.flake())]
    LocalInput {
        /// The flake output.
        installable: Installable,
        /// The input's name in the lock file.
        input: String,
        /// Its reference.
        reference: String,
    },
    /// The user that evaluates for callers who are not root does not exist or is privileged.
    #[error("the user '{user}' cannot evaluate flakes: {reason}")]
    User {
        /// The user as configured.
        user: String,
        /// Cause of the rejection.
        reason: &'static str,
    },
    /// The Nix daemon, which builds for callers who are not root, does not respond.
    #[error("cannot build '{installable}' for a caller who is not root: no Nix daemon responds on {}", .socket.display())]
    NoNixDaemon {
        /// The flake output.
        installable: Installable,
        /// The socket.
        socket: PathBuf,
        /// The error of the connection.
        #[source]
        source: io::Error,
    },
    /// The disk of the store has too little space for a build that nobody waits for.
    #[error(
        "the disk of the Nix store has {} MiB left, and a build in advance must leave {} MiB",
        free >> 20,
        needed >> 20
    )]
    StoreFull {
        /// The free bytes.
        free: u64,
        /// The bytes that must be free.
        needed: u64,
    },
    /// Somebody waits for another build.
    #[error("a build in advance gave way to one that somebody waits for")]
    GaveWay,
    /// Nix's database does not list the path.
    #[error("{0} is not a valid store path: it is not registered in Nix's database")]
    Unregistered(StorePath),
    /// Nix's database cannot be read.
    #[error("cannot check that Nix's database lists {closure}")]
    Query {
        /// The store path.
        closure: StorePath,
        /// The error of the query.
        #[source]
        source: CommandError,
    },
    /// Nix cannot be started to copy closures.
    #[error("cannot copy closures: {}", cache.display())]
    CopyProgram {
        /// The binary cache.
        cache: PathBuf,
        /// The error of the start.
        #[source]
        source: CommandError,
    },
    /// Nix cannot copy closures.
    #[error("cannot copy closures: {}: {summary}", cache.display())]
    Copy {
        /// The binary cache.
        cache: PathBuf,
        /// Nix's error in one line.
        summary: String,
        /// The last lines of Nix's log.
        log: Vec<String>,
    },
    /// A GC root or another file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The database for a guest's Nix.
    #[error("cannot tell the guest's Nix what is in this host's store")]
    Database(#[from] DatabaseError),
    /// A root to be swept that is not managed by Innkeeper.
    #[error("the GC root '{0}' is not managed by Innkeeper")]
    Foreign(String),
    /// A guest's GC root belongs to another daemon.
    #[error("the GC root {0} belongs to another Innkeeper daemon")]
    OtherDaemon(String),
    /// The failure of a coalesced build.
    #[error(transparent)]
    Shared(Arc<Self>),
}

impl From<ClosureError> for FacilityError {
    fn from(error: ClosureError) -> Self {
        Self::new(error)
    }
}

impl Explain for ClosureError {
    fn code(&self) -> Code {
        match self {
            Self::NotFound(_) => Code::ClosureNotFound,
            Self::Invalid { .. } | Self::Emptied(_) | Self::NoOutput(_) => Code::InvalidClosure,
            Self::Unregistered(_) => Code::InvalidClosure,
            Self::StoreFull { .. } => Code::DiskFull,
            Self::GaveWay => Code::GuestBusy,
            Self::LocalFlake(_) | Self::LocalInput { .. } => Code::FlakeRefused,
            Self::User { .. } => Code::InvalidConfig,
            Self::NoNixDaemon { .. } => Code::NixMissing,
            Self::Nix { source, .. }
            | Self::Query { source, .. }
            | Self::CopyProgram { source, .. } => match source {
                CommandError::Missing { .. } => Code::NixMissing,
                _ => Code::BuildFailed,
            },
            Self::FlakeNotFound { .. } | Self::OutputNotFound(_) => Code::FlakeNotFound,
            Self::Build { .. } | Self::InvalidOutput { .. } => Code::BuildFailed,
            Self::File(error) | Self::Database(DatabaseError::File(error)) => {
                error.code_or(Code::Internal)
            }
            Self::Database(_) => Code::Internal,
            Self::Copy { .. } => Code::ClosureNotFound,
            Self::Foreign(_) => Code::Internal,
            Self::OtherDaemon(_) => Code::DaemonConflict,
            Self::Shared(error) => error.code(),
        }
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::NotFound(closure) => format!(
                "Build it with `agent build`, or copy it here with `nix copy --from <store> {closure}`."
            ),
            Self::Invalid { .. } | Self::NoOutput(_) => {
                "Use an output such as `nixosConfigurations.<name>.config.system.build.toplevel`: a directory in the store with an executable `init`.".to_owned()
            }
            Self::Emptied(_) => {
                "Run `nix-store --verify --check-contents --repair`, which finds all damaged paths and repairs what it can. Delete the others with `nix-store --delete`.".to_owned()
            }
            Self::FlakeNotFound { .. } => {
                "Use the directory that contains flake.nix, or a reference such as github:owner/repo.".to_owned()
            }
            Self::OutputNotFound(installable) => {
                format!("`nix flake show {}` lists its outputs.", installable.flake())
            }
            Self::Build { installable, .. } => {
                format!("`nix build -L '{installable}'` shows the full log.")
            }
            Self::InvalidOutput { .. } => {
                "Run `nix --version`: Innkeeper needs Nix 2.8 or newer.".to_owned()
            }
            Self::LocalFlake(installable) | Self::LocalInput { installable, .. } => format!(
                "Build it yourself (`nix build --print-out-paths '{installable}'`) and pass the store path: `agent create --closure STORE_PATH`. Or use only remote references, such as github:owner/repo or git+https://host/repo."
            ),
            Self::User { .. } => {
                "Create the user without a login and without other groups, or set another one as evaluation.user in innkeeperd's configuration.".to_owned()
            }
            Self::NoNixDaemon { .. } => {
                "Start it (`systemctl start nix-daemon.socket`), or have root build the flake.".to_owned()
            }
            Self::GaveWay => "The next prefetch builds it.".to_owned(),
            Self::StoreFull { .. } => "Run `nix-collect-garbage`, or free space otherwise.".to_owned(),
            Self::Unregistered(closure) => format!(
                "Build it with Nix, or copy it here with `nix copy --from <store> {closure}`. A path that is still being built becomes valid when its build ends."
            ),
            Self::File(error) | Self::Database(DatabaseError::File(error)) => return error.remedy(),
            Self::Database(DatabaseError::Schema { .. }) => {
                "Use guests without a Nix of their own (`innkeeper.guest.nix.enable = false`) until Innkeeper supports this version of Nix.".to_owned()
            }
            Self::Database(DatabaseError::Sql { .. }) => {
                "Run `nix-store --verify` on the host, then try again.".to_owned()
            }
            Self::Nix { source, .. }
            | Self::Query { source, .. }
            | Self::CopyProgram { source, .. } => return source.remedy(),
            Self::Copy { cache, .. } => {
                format!("`nix path-info --all --store '{}'` lists its contents.", cache.display())
            }
            Self::Foreign(_) => return None,
            Self::OtherDaemon(_) => {
                "Set another `nix.gcroots_dir` for this daemon. If the other daemon no longer exists, remove the link.".to_owned()
            }
            Self::Shared(error) => return error.remedy(),
        })
    }

    fn log(&self) -> &[String] {
        match self {
            Self::Build { log, .. } | Self::Copy { log, .. } => log,
            Self::Shared(error) => error.log(),
            _ => &[],
        }
    }
}
