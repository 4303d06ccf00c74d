//! What can go wrong with an evaluation.

use std::sync::Arc;
use std::time::Duration;

use innkeeper_model::preview::{MetaProblem, MetaProblems};
use innkeeper_model::{Code, Explain, MemorySize, StorePath};

use crate::closure::ClosureError;
use crate::closure::cause::{self, HostFault};
use crate::{CommandError, FileError, HostError};

/// A preview-config.nix that does not become a closure, or a host that cannot evaluate one.
///
/// What is said of those with the codes `preview_config_invalid`, `build_failed` and `invalid_closure` may be shown in
/// public: it has no path of the host, and nothing that neither the evaluator nor the builder knew.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// Nix refuses the file, or what it says.
    #[error("preview-config.nix cannot be evaluated: {summary}")]
    Config {
        /// Nix's error in one line.
        summary: String,
        /// The last lines of what Nix said.
        log: Vec<String>,
    },
    /// The file is too large to be looked at.
    #[error("preview-config.nix has {size} bytes; {limit} are the most")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// It did not end in time.
    #[error("evaluating preview-config.nix was stopped after {} s", .0.as_secs())]
    TooSlow(Duration),
    /// It used up its processor time.
    #[error("evaluating preview-config.nix was stopped after {} s of processor time", .0.as_secs())]
    TooMuchCpu(Duration),
    /// It wanted more memory than there is for it.
    #[error("evaluating preview-config.nix takes more than {0} of memory")]
    TooMuchMemory(MemorySize),
    /// It printed more than anybody reads, or its derivations are too large.
    #[error("preview-config.nix evaluates to more than {0} bytes")]
    TooMuchOutput(u64),
    /// The evaluator handed over something else than it says. Nix does not; something has taken it over.
    #[error("the evaluation of preview-config.nix ended with something that is refused: {0}")]
    Refused(String),
    /// Somebody killed the evaluator.
    #[error("the evaluation of preview-config.nix was killed")]
    Killed,
    /// The host could not build it.
    #[error("preview-config.nix cannot be built now: {0}")]
    Host(HostFault),
    /// Nix could not build it, and the cause may be the host.
    #[error("preview-config.nix was not built to the end: {summary}")]
    Interrupted {
        /// Nix's error in one line.
        summary: String,
        /// The last lines of the build's log and of Nix's errors.
        log: Vec<String>,
    },
    /// Nix could not build it.
    #[error("preview-config.nix does not build: {summary}")]
    Build {
        /// Nix's error in one line.
        summary: String,
        /// The last lines of the build's log and of Nix's errors.
        log: Vec<String>,
    },
    /// The build of all derivations together took too long.
    #[error("building preview-config.nix was stopped after {} s", .0.as_secs())]
    BuildTooSlow(Duration),
    /// More is to be built than one preview may have built.
    #[error("building preview-config.nix takes more than {0} derivations")]
    TooManyDerivations(u64),
    /// There is too little space for builds.
    #[error("the disk of the Nix store has {free} free, and {needed} must stay free")]
    StoreFull {
        /// What is free.
        free: MemorySize,
        /// What must be.
        needed: MemorySize,
    },
    /// The meta data cannot be read.
    #[error("system.build.previewMeta in preview-config.nix is of no use: {0}")]
    Meta(String),
    /// The meta data says something that is wrong.
    #[error("{}", several(problems))]
    WrongMeta {
        /// All that is wrong.
        problems: MetaProblems,
        /// The same as the log: a line each, with what to do.
        lines: Vec<String>,
    },
    /// It builds, and no guest can boot from it.
    #[error("no guest can boot from what preview-config.nix builds: {0}")]
    NotBootable(String),
    /// What it builds cannot be looked at.
    #[error(transparent)]
    Closure(ClosureError),
    /// The host's nixpkgs or base module is not what the configuration says.
    #[error("previews cannot be evaluated with {what}: {reason}")]
    Base {
        /// What is wrong: a path.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The user who evaluates does not exist, or is no user without rights.
    #[error("previews cannot be evaluated as the user '{user}': {reason}")]
    User {
        /// The name or number.
        user: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Builders would own the store's files, and could change them.
    #[error("previews cannot be built without users for Nix's builders: {0}")]
    NoBuildUsers(String),
    /// Builds cannot be kept from the host's own network.
    #[error("previews cannot be built without firewall rules for builds")]
    BuildNetwork(#[source] Box<HostError>),
    /// The place for the evaluator cannot be made.
    #[error("cannot make a closed place to evaluate preview-config.nix: {0}")]
    Place(String),
    /// The objects cannot be taken into the host's store.
    #[error("cannot take {count} objects into the Nix store")]
    Import {
        /// How many there were.
        count: usize,
        /// What Nix says.
        #[source]
        source: CommandError,
    },
    /// An object cannot be read from the evaluator's store.
    #[error("cannot read what the evaluation made, {path}")]
    Read {
        /// The object.
        path: StorePath,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// A program that is needed does not run.
    #[error("cannot evaluate preview-config.nix")]
    Command(#[from] CommandError),
    /// Nix's settings cannot be read.
    #[error("cannot read the settings that Nix prints")]
    Settings(#[source] serde_json::Error),
    /// A GC root or another file of ours.
    #[error(transparent)]
    File(#[from] FileError),
    /// The failure of an evaluation that several waited for.
    #[error(transparent)]
    Shared(Arc<Self>),
}

/// One problem is told as it is; of several, the log has all.
fn several(problems: &MetaProblems) -> String {
    match problems.0.len() {
        1 => problems.to_string(),
        _ => "system.build.previewMeta in preview-config.nix is wrong in several places".to_owned(),
    }
}

impl From<Vec<MetaProblem>> for EvaluateError {
    fn from(problems: Vec<MetaProblem>) -> Self {
        let problems = MetaProblems(problems);
        Self::WrongMeta {
            lines: problems.lines(),
            problems,
        }
    }
}

impl From<ClosureError> for EvaluateError {
    fn from(error: ClosureError) -> Self {
        match error {
            // Without the path, which is nobody's business.
            ClosureError::Invalid { reason, .. } => Self::NotBootable(reason),
            other => Self::Closure(other),
        }
    }
}

impl EvaluateError {
    /// Whether the host may be at fault, so that the same may succeed when it is tried again.
    #[must_use]
    pub fn is_unclear(&self) -> bool {
        match self {
            Self::Killed | Self::Interrupted { .. } => true,
            Self::Shared(error) => error.is_unclear(),
            _ => false,
        }
    }
}

impl Explain for EvaluateError {
    fn code(&self) -> Code {
        match self {
            Self::Config { .. }
            | Self::TooLarge { .. }
            | Self::TooSlow(_)
            | Self::TooMuchCpu(_)
            | Self::TooMuchMemory(_)
            | Self::TooMuchOutput(_)
            | Self::Killed
            | Self::Refused(_)
            | Self::Meta(_)
            | Self::WrongMeta { .. } => Code::PreviewConfigInvalid,
            Self::Host(fault) => fault.code(),
            Self::Build { .. }
            | Self::Interrupted { .. }
            | Self::BuildTooSlow(_)
            | Self::TooManyDerivations(_) => Code::BuildFailed,
            Self::StoreFull { .. } => Code::DiskFull,
            Self::NotBootable(_) => Code::InvalidClosure,
            Self::Closure(error) => error.code(),
            Self::Base { .. } | Self::User { .. } => Code::InvalidConfig,
            Self::NoBuildUsers(_) => Code::BuildUsersMissing,
            Self::BuildNetwork(source) => source.code(),
            Self::Place(_) => Code::PermissionDenied,
            Self::Import { source, .. } | Self::Command(source) => match source {
                CommandError::Missing { program } if program.contains("nix") => Code::NixMissing,
                // No failed build: the host's own Nix does not do as asked.
                CommandError::Failed { stderr, .. } => {
                    cause::host_fault(stderr).map_or(Code::BuildHostFailed, HostFault::code)
                }
                other => other.code_or(Code::BuildHostFailed),
            },
            Self::Read { .. } | Self::Settings(_) => Code::Internal,
            Self::File(error) => error.code_or(Code::Internal),
            Self::Shared(error) => error.code(),
        }
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::Config { .. } => {
                "It is evaluated purely: without the network, files of the host, environment variables, <nixpkgs> and import from derivation. Correct preview-config.nix and push again.".to_owned()
            }
            Self::TooLarge { .. } => "Move what is large out of preview-config.nix.".to_owned(),
            Self::TooSlow(_) | Self::TooMuchCpu(_) | Self::TooMuchMemory(_) | Self::TooMuchOutput(_) => {
                "Look for a recursion that does not end. Whoever runs this host can raise the limit.".to_owned()
            }
            Self::Refused(_) => "Look at what this pull request tries to do.".to_owned(),
            Self::TooManyDerivations(_) => {
                "Build less in preview-config.nix. Whoever runs this host can raise `builds.max_derivations`.".to_owned()
            }
            Self::StoreFull { .. } => {
                "Run `innkeeper gc`, and have Nix collect its garbage; or lower `builds.min_free`.".to_owned()
            }
            Self::BuildTooSlow(_) => {
                "Build less in preview-config.nix, or look for a builder that does not end.".to_owned()
            }
            Self::Host(fault) => fault.remedy().to_owned(),
            Self::Build { .. } => "Correct preview-config.nix and push again.".to_owned(),
            Self::Killed | Self::Interrupted { .. } => "It was killed, or met a full disk or a download that does not respond, and failed several times. Look whether preview-config.nix takes too much memory or names what does not exist, correct it and push again.".to_owned(),
            Self::Meta(_) => {
                "Set it to an attribute set, or to a file with JSON made by pkgs.writeText.".to_owned()
            }
            Self::WrongMeta { problems, .. } => return problems.remedy(),
            Self::NotBootable(_) => {
                "Leave system.build.toplevel to NixOS.".to_owned()
            }
            Self::Closure(error) => return error.remedy(),
            Self::Base { .. } => {
                "Name a nixpkgs with a flake.nix, and the hash that belongs to it, in innkeeperd's configuration.".to_owned()
            }
            Self::User { user, .. } => format!(
                "Make one: `useradd --system --no-create-home --shell /usr/sbin/nologin {user}`, or name one that owns nothing in innkeeperd's configuration; a number that nobody has will do, such as 64999."
            ),
            Self::BuildNetwork(source) => return source.remedy(),
            Self::NoBuildUsers(_) => {
                "On Debian, install the package nix-setup-systemd. Elsewhere make the group nixbld and users that are its members (`groupadd --system nixbld`, then `useradd --system --gid nixbld --groups nixbld nixbld1` and so on). Leave build-users-group out of nix.conf and of `nix.options`.".to_owned()
            }
            Self::Place(_) => {
                "innkeeperd must be root and allowed to make namespaces and mounts.".to_owned()
            }
            Self::Import { source, .. } | Self::Command(source) => match source {
                CommandError::Failed { stderr, .. } => cause::host_fault(stderr)
                    .unwrap_or(HostFault::Nix)
                    .remedy()
                    .to_owned(),
                other => return other.remedy(),
            },
            Self::Settings(_) => {
                "Run `nix --version`; Innkeeper works with Nix 2.8 and newer.".to_owned()
            }
            Self::Read { .. } => return None,
            Self::File(error) => return error.remedy(),
            Self::Shared(error) => return error.remedy(),
        })
    }

    fn log(&self) -> &[String] {
        match self {
            Self::Config { log, .. } | Self::Build { log, .. } | Self::Interrupted { log, .. } => {
                log
            }
            Self::WrongMeta { lines, .. } => lines,
            Self::Closure(error) => error.log(),
            Self::Shared(error) => error.log(),
            _ => &[],
        }
    }
}
