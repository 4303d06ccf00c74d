//! Errors of evaluations and their builds.

use std::sync::Arc;
use std::time::Duration;

use innkeeper_facilities::FacilityError;
use innkeeper_model::preview::sources::SourceTree;
use innkeeper_model::preview::{ConfigProblem, MetaProblem};
use innkeeper_model::{Code, Explain, MemorySize, StorePath};

use crate::closure::ClosureError;
use crate::closure::cause::{self, HostFault};
use crate::{CommandError, FileError};

/// A failed evaluation or build of a preview-config.nix.
///
/// Messages, remedies and logs with the codes `preview_config_invalid`, `build_failed` and `invalid_closure` are public.
/// They must contain no host path, and only what the evaluator or the builder could see.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// Nix rejects the file or its contents.
    #[error("preview-config.nix cannot be evaluated: {summary}")]
    Config {
        /// Nix's error in one line.
        summary: String,
        /// The last lines of Nix's output.
        log: Vec<String>,
        /// The same as problems with places, if Nix's error has a known form.
        problems: Vec<ConfigProblem>,
    },
    /// The files exceed the size limit and were not evaluated.
    #[error("the files of the configuration have {size} bytes, and the limit is {limit}")]
    TooLarge {
        /// Their size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A derivation copies a folder of the repository, of which the evaluation has only some files.
    #[error(
        "preview-config.nix copies {folder} into the Nix store, but the evaluation has only the configuration's files of it"
    )]
    PartialSource {
        /// The folder: `the whole repository (./.)`, or `./` and its path.
        folder: String,
        /// The same as log lines, with examples of missing files.
        lines: Vec<String>,
    },
    /// The evaluation timed out.
    #[error("the evaluation of preview-config.nix was stopped after {} s", .0.as_secs())]
    TooSlow(Duration),
    /// The evaluation exceeded its CPU time.
    #[error("the evaluation of preview-config.nix was stopped after {} s of processor time", .0.as_secs())]
    TooMuchCpu(Duration),
    /// The evaluation exceeded its memory limit.
    #[error("the evaluation of preview-config.nix takes more than {0} of memory")]
    TooMuchMemory(MemorySize),
    /// The output or the derivations exceed the limit.
    #[error("the evaluation of preview-config.nix produces more than {0} bytes")]
    TooMuchOutput(u64),
    /// The evaluator's result failed verification. Nix does not produce such results: the evaluator is compromised.
    #[error("the evaluation of preview-config.nix returned a result that is refused: {0}")]
    Refused(String),
    /// The evaluator was killed from outside.
    #[error("the evaluation of preview-config.nix was killed")]
    Killed,
    /// The build failed because of the host.
    #[error("preview-config.nix cannot be built now: {0}")]
    Host(HostFault),
    /// The build failed, possibly because of the host.
    #[error("the build of preview-config.nix was interrupted: {summary}")]
    Interrupted {
        /// Nix's error in one line.
        summary: String,
        /// The last lines of the build's log and of Nix's errors.
        log: Vec<String>,
    },
    /// The build failed.
    #[error("preview-config.nix does not build: {summary}")]
    Build {
        /// Nix's error in one line.
        summary: String,
        /// The last lines of the build's log and of Nix's errors.
        log: Vec<String>,
    },
    /// The build of all derivations together timed out.
    #[error("the build of preview-config.nix was stopped after {} s", .0.as_secs())]
    BuildTooSlow(Duration),
    /// The preview exceeds the limit of derivations to build.
    #[error("preview-config.nix needs builds of more than {0} derivations")]
    TooManyDerivations(u64),
    /// The disk of the Nix store lacks space for builds.
    #[error("the disk of the Nix store has {free} free, and {needed} must stay free")]
    StoreFull {
        /// Free space.
        free: MemorySize,
        /// Space that must stay free.
        needed: MemorySize,
    },
    /// The metadata cannot be read.
    #[error("cannot read system.build.previewMeta of preview-config.nix: {0}")]
    Meta(String),
    /// The metadata has invalid or missing fields.
    #[error("{}", summarize(problems))]
    WrongMeta {
        /// All problems.
        problems: Vec<ConfigProblem>,
        /// The same as log lines, each with its remedy.
        lines: Vec<String>,
    },
    /// The build succeeded, but guests cannot boot from its result.
    #[error("guests cannot boot from the closure of preview-config.nix: {0}")]
    NotBootable(String),
    /// The built closure cannot be checked.
    #[error(transparent)]
    Closure(ClosureError),
    /// The host's nixpkgs or base module is missing or has the wrong hash.
    #[error("cannot evaluate previews with {path}: {reason}")]
    Base {
        /// Path of nixpkgs or the base module.
        path: String,
        /// Cause of the rejection.
        reason: String,
    },
    /// The evaluator's user does not exist or is privileged.
    #[error("cannot evaluate previews as the user '{user}': {reason}")]
    User {
        /// The name or UID.
        user: String,
        /// Cause of the rejection.
        reason: &'static str,
    },
    /// Without build users, builders would own the store's files and could change them.
    #[error("cannot build previews without users for Nix's builders: {0}")]
    NoBuildUsers(String),
    /// Builds cannot be isolated from the host's own network.
    #[error("cannot build previews without firewall rules for builds")]
    BuildNetwork(#[source] FacilityError),
    /// The evaluator's sandbox cannot be set up.
    #[error("cannot set up the sandbox to evaluate preview-config.nix: {0}")]
    Sandbox(String),
    /// The objects cannot be imported into the host's store.
    #[error("cannot import {count} objects into the Nix store")]
    Import {
        /// Number of objects.
        count: usize,
        /// Nix's error.
        #[source]
        source: CommandError,
    },
    /// An object cannot be read from the evaluator's store.
    #[error("cannot read {path} from the evaluator's store")]
    Read {
        /// The object.
        path: StorePath,
        /// The kernel's error.
        #[source]
        source: std::io::Error,
    },
    /// A required program does not run.
    #[error("cannot evaluate preview-config.nix")]
    Command(#[from] CommandError),
    /// Nix's settings cannot be read.
    #[error("cannot parse the output of `nix show-config --json`")]
    Settings(#[source] serde_json::Error),
    /// A GC root or another file of the evaluator.
    #[error(transparent)]
    File(#[from] FileError),
    /// The failure of a coalesced evaluation.
    #[error(transparent)]
    Shared(Arc<Self>),
}

/// Returns the first problem; the log lists several.
fn summarize(problems: &[ConfigProblem]) -> String {
    const SUBJECT: &str = "system.build.previewMeta";
    match problems {
        [] => format!("{SUBJECT} is invalid"),
        [only] => format!("{SUBJECT} is invalid: {}", without_remedy(only)),
        [first, ..] => format!(
            "{SUBJECT} has {} problems; the first: {}",
            problems.len(),
            without_remedy(first)
        ),
    }
}

fn without_remedy(problem: &ConfigProblem) -> ConfigProblem {
    ConfigProblem {
        remedy: None,
        ..problem.clone()
    }
}

impl From<ClosureError> for EvaluateError {
    fn from(error: ClosureError) -> Self {
        match error {
            // Drops the path: host paths are not public.
            ClosureError::Invalid { reason, .. } => Self::NotBootable(reason),
            other => Self::Closure(other),
        }
    }
}

impl EvaluateError {
    /// Returns the error for problems of the metadata, with their places in the configuration.
    pub(super) fn wrong_meta(sources: &SourceTree, problems: &[MetaProblem]) -> Self {
        let located = problems.iter().map(|problem| problem.located(sources));
        let problems: Vec<ConfigProblem> = located.collect();
        Self::WrongMeta {
            lines: problems.iter().map(ConfigProblem::log_line).collect(),
            problems,
        }
    }

    /// Returns the problems of the configuration; `None` if the host is at fault, or may be.
    pub(super) fn problems(&self) -> Option<Vec<ConfigProblem>> {
        match self {
            Self::Config { problems, .. } | Self::WrongMeta { problems, .. }
                if !problems.is_empty() =>
            {
                Some(problems.clone())
            }
            Self::Shared(error) => error.problems(),
            Self::Killed => None,
            _ if self.code() == Code::PreviewConfigInvalid => Some(vec![ConfigProblem {
                place: None,
                field: None,
                message: self.to_string(),
                remedy: self.remedy(),
            }]),
            _ => None,
        }
    }

    /// Reports whether the host may be at fault, so that a retry may succeed.
    #[must_use]
    pub fn is_inconclusive(&self) -> bool {
        match self {
            Self::Killed | Self::Interrupted { .. } => true,
            Self::Shared(error) => error.is_inconclusive(),
            _ => false,
        }
    }
}

impl From<EvaluateError> for FacilityError {
    fn from(error: EvaluateError) -> Self {
        let inconclusive = error.is_inconclusive();
        let error = Self::new(error);
        if inconclusive {
            error.inconclusive()
        } else {
            error
        }
    }
}

impl Explain for EvaluateError {
    fn code(&self) -> Code {
        match self {
            Self::Config { .. }
            | Self::TooLarge { .. }
            | Self::PartialSource { .. }
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
            Self::Sandbox(_) => Code::PermissionDenied,
            Self::Import { source, .. } | Self::Command(source) => match source {
                CommandError::Missing { program } if program.contains("nix") => Code::NixMissing,
                // Not a failed build: the host's own Nix fails.
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
                "Evaluation is pure: without the network, host files, environment variables, <nixpkgs> and import from derivation. Correct preview-config.nix and push again.".to_owned()
            }
            Self::TooLarge { .. } => "Move large files out of the folders that it refers to.".to_owned(),
            Self::PartialSource { .. } => "Do not build the app in preview-config.nix: let the setup service clone the repository in the guest (`git clone \"$PREVIEW_REPO_URL\"`, then check out `$PREVIEW_COMMIT`), and build it there. To copy a few files, name each by its path.".to_owned(),
            Self::TooSlow(_) | Self::TooMuchCpu(_) | Self::TooMuchMemory(_) | Self::TooMuchOutput(_) => {
                "Look for infinite recursion. The host's administrator can raise the limit.".to_owned()
            }
            Self::Refused(_) => "Review this pull request: it may attack the host.".to_owned(),
            Self::TooManyDerivations(_) => {
                "Build less in preview-config.nix. The host's administrator can raise `builds.max_derivations`.".to_owned()
            }
            Self::StoreFull { .. } => {
                "Run `innkeeper gc` and Nix's garbage collection, or lower `builds.min_free`.".to_owned()
            }
            Self::BuildTooSlow(_) => {
                "Build less in preview-config.nix, or look for a builder that hangs.".to_owned()
            }
            Self::Host(fault) => fault.remedy().to_owned(),
            Self::Build { .. } => "Correct preview-config.nix and push again.".to_owned(),
            Self::Killed | Self::Interrupted { .. } => "It failed several times: it was killed, the disk was full, or a download did not respond. Check whether preview-config.nix needs too much memory or downloads a missing file, correct it and push again.".to_owned(),
            Self::Meta(_) => {
                "Set it to an attribute set, or to a file with JSON made by pkgs.writeText.".to_owned()
            }
            Self::WrongMeta { problems, .. } => match problems.as_slice() {
                [only] => return only.remedy.clone(),
                _ => "Fix these places and push again.".to_owned(),
            },
            Self::NotBootable(_) => {
                "Do not override NixOS's system.build.toplevel.".to_owned()
            }
            Self::Closure(error) => return error.remedy(),
            Self::Base { .. } => {
                "In innkeeperd's configuration, set a nixpkgs with a flake.nix, and its hash.".to_owned()
            }
            Self::User { user, .. } => format!(
                "Create it with `useradd --system --no-create-home --shell /usr/sbin/nologin {user}`, or set another user that owns nothing in innkeeperd's configuration. An unused UID such as 64999 works as well."
            ),
            Self::BuildNetwork(source) => return source.remedy(),
            Self::NoBuildUsers(_) => {
                "On Debian, install the package nix-setup-systemd. Elsewhere create the group nixbld and its members (`groupadd --system nixbld`, then `useradd --system --gid nixbld --groups nixbld nixbld1` and so on). Do not set build-users-group in nix.conf or in `nix.options`.".to_owned()
            }
            Self::Sandbox(_) => {
                "Run innkeeperd as root, with permission to create namespaces and mounts.".to_owned()
            }
            Self::Import { source, .. } | Self::Command(source) => match source {
                CommandError::Failed { stderr, .. } => cause::host_fault(stderr)
                    .unwrap_or(HostFault::Nix)
                    .remedy()
                    .to_owned(),
                other => return other.remedy(),
            },
            Self::Settings(_) => {
                "Run `nix --version`: Innkeeper needs Nix 2.8 or newer.".to_owned()
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
            Self::WrongMeta { lines, .. } | Self::PartialSource { lines, .. } => lines,
            Self::Closure(error) => error.log(),
            Self::Shared(error) => error.log(),
            _ => &[],
        }
    }
}
