//! What can go wrong with a closure.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use innkeeper_facilities::FacilityError;
use innkeeper_model::{Code, Explain, Installable, StorePath};

use crate::{CommandError, FileError};

/// A closure that could not be built, is not usable, or could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum ClosureError {
    /// The store path does not exist.
    #[error("the closure {0} does not exist on this host")]
    NotFound(StorePath),
    /// No guest can boot from it.
    #[error("no guest can boot from {closure}: {reason}")]
    Invalid {
        /// The closure.
        closure: StorePath,
        /// What is wrong with it.
        reason: String,
    },
    /// Its `init` has no contents: a loss of power came before they were on the disk.
    #[error("the closure {0} is damaged: its 'init' is empty, as a loss of power can leave it")]
    Emptied(StorePath),
    /// It was built and has no output `out`.
    #[error("'{0}' builds nothing that a guest can boot from: it has no output 'out'")]
    NoOutput(Installable),
    /// Nix cannot be run.
    #[error("cannot build '{installable}'")]
    Nix {
        /// What was to be built.
        installable: Installable,
        /// Why Nix did not start.
        #[source]
        source: CommandError,
    },
    /// The directory of a local flake, or `flake.nix` in it, does not exist. Whether a flake elsewhere
    /// exists only Nix can tell, in a sentence for people: that is [`Self::Build`].
    #[error("there is no flake in '{flake}': {reason}")]
    FlakeNotFound {
        /// The flake reference.
        flake: String,
        /// What is missing.
        reason: &'static str,
    },
    /// The flake has no such output.
    #[error("the flake '{}' has no output '{}'", .0.flake(), .0.attribute())]
    OutputNotFound(Installable),
    /// Nix ran and failed.
    #[error("cannot build '{installable}': {summary}")]
    Build {
        /// What was to be built.
        installable: Installable,
        /// Nix's error in one line.
        summary: String,
        /// The last lines of the build's log and of Nix's errors.
        log: Vec<String>,
    },
    /// Nix answered something that is not known.
    #[error("cannot read what Nix says about '{installable}'")]
    Answer {
        /// What was asked about.
        installable: Installable,
        /// What is wrong with the answer.
        #[source]
        source: serde_json::Error,
    },
    /// A flake on the host, asked for by a caller who is not root.
    #[error("only root may build from '{}', which is not a remote flake", .0.flake())]
    LocalFlake(Installable),
    /// A flake with an input on the host, asked for by a caller who is not root.
    #[error("only root may build from '{}': its input '{input}' is {reference}, which is not remote", .installable.flake())]
    LocalInput {
        /// What was to be built.
        installable: Installable,
        /// The input's name in the lock file.
        input: String,
        /// Its reference.
        reference: String,
    },
    /// The user that evaluates for callers who are not root cannot be used.
    #[error("the user '{user}' cannot evaluate flakes: {reason}")]
    User {
        /// The user as configured.
        user: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The Nix daemon does not answer, and a caller who is not root needs it.
    #[error("cannot build '{installable}' for a caller who is not root: no Nix daemon answers on {}", .socket.display())]
    NoNixDaemon {
        /// What was to be built.
        installable: Installable,
        /// The socket.
        socket: PathBuf,
        /// Why nothing answers.
        #[source]
        source: io::Error,
    },
    /// Nix's database does not list the path.
    #[error("{0} is not a valid store path: it is not registered in Nix's database")]
    Unregistered(StorePath),
    /// Nix's database cannot be read.
    #[error("cannot check that Nix's database lists {closure}")]
    Query {
        /// The store path.
        closure: StorePath,
        /// Why not.
        #[source]
        source: CommandError,
    },
    /// A GC root or another file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A root that is not ours was to be swept.
    #[error("'{0}' is no GC root of ours")]
    Foreign(String),
    /// A guest's GC root is another daemon's.
    #[error("the GC root {0} belongs to another Innkeeper daemon")]
    OtherDaemon(String),
    /// The failure of a build that several waited for.
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
            Self::LocalFlake(_) | Self::LocalInput { .. } => Code::FlakeRefused,
            Self::User { .. } => Code::InvalidConfig,
            Self::NoNixDaemon { .. } => Code::NixMissing,
            Self::Nix { source, .. } | Self::Query { source, .. } => match source {
                CommandError::Missing { .. } => Code::NixMissing,
                _ => Code::BuildFailed,
            },
            Self::FlakeNotFound { .. } | Self::OutputNotFound(_) => Code::FlakeNotFound,
            Self::Build { .. } | Self::Answer { .. } => Code::BuildFailed,
            Self::File(error) => error.code_or(Code::Internal),
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
                "Give an output like `nixosConfigurations.<name>.config.system.build.toplevel`: a directory in the store with an executable `init`.".to_owned()
            }
            Self::Emptied(_) => {
                "`nix-store --verify --check-contents --repair` finds what else is damaged, and makes it again where it can; what it cannot, `nix-store --delete` removes.".to_owned()
            }
            Self::FlakeNotFound { .. } => {
                "Give the directory that holds flake.nix, or a reference such as github:owner/repo.".to_owned()
            }
            Self::OutputNotFound(installable) => {
                format!("`nix flake show {}` lists its outputs.", installable.flake())
            }
            Self::Build { installable, .. } => {
                format!("`nix build -L '{installable}'` shows the whole log.")
            }
            Self::Answer { .. } => {
                "Run `nix --version`; Innkeeper works with Nix 2.8 and newer.".to_owned()
            }
            Self::LocalFlake(installable) | Self::LocalInput { installable, .. } => format!(
                "Build it yourself (`nix build --print-out-paths '{installable}'`) and give the store path: `agent create --closure STORE_PATH`. Or use remote references only, such as github:owner/repo or git+https://host/repo."
            ),
            Self::User { .. } => {
                "Create the user without a login and without other groups, or name another one in evaluation.user of innkeeperd's configuration.".to_owned()
            }
            Self::NoNixDaemon { .. } => {
                "Start it (`systemctl start nix-daemon.socket`), or have root build the flake.".to_owned()
            }
            Self::Unregistered(closure) => format!(
                "Build it with Nix, or copy it here with `nix copy --from <store> {closure}`. A path that is still being built becomes valid when its build ends."
            ),
            Self::Nix { source, .. } | Self::Query { source, .. } => return source.remedy(),
            Self::File(error) => return error.remedy(),
            Self::Foreign(_) => return None,
            Self::OtherDaemon(_) => {
                "Give this daemon a `nix.gcroots_dir` of its own. If the other one is gone for good, remove the link.".to_owned()
            }
            Self::Shared(error) => return error.remedy(),
        })
    }

    fn log(&self) -> &[String] {
        match self {
            Self::Build { log, .. } => log,
            Self::Shared(error) => error.log(),
            _ => &[],
        }
    }
}
