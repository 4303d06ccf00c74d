//! Configuration of evaluations.

use std::path::PathBuf;
use std::time::Duration;

use innkeeper_model::MemorySize;

use super::BuildLimits;
use crate::closure::NixConfig;

/// Paths, users and limits of evaluations.
#[derive(Clone, Debug)]
pub struct EvaluatorConfig {
    /// The host's Nix, which builds. Builders of previews always run in Nix's sandbox, regardless of the options.
    pub nix: NixConfig,
    /// Directory of nixpkgs, preferably in the store. Other directories are copied to the store once.
    pub nixpkgs: PathBuf,
    /// Expected hash of nixpkgs, as in a flake's lock file (`sha256-…`). Recommended for a writable directory.
    pub nixpkgs_hash: Option<String>,
    /// File of the module that precedes every preview-config.nix. It can refer to other files in its folder.
    pub base_module: PathBuf,
    /// Nix's system name, such as `x86_64-linux`.
    pub system: String,
    /// The evaluator's user: a name, or a UID that need not be in /etc/passwd. It must own no files.
    pub user: String,
    /// Directory for scratch files of running evaluations, `<state>/evaluations`. Only this daemon writes there.
    pub scratch: PathBuf,
    /// The directory of the GC roots, `/nix/var/nix/gcroots/innkeeper-evaluations`.
    pub roots: PathBuf,
    /// Limits of one evaluation.
    pub limits: EvaluationLimits,
    /// Limits of builds.
    pub builds: BuildLimits,
    /// Maximum number of concurrent evaluations, at least one.
    pub concurrent: usize,
}

/// Limits of one evaluation. A plain NixOS takes about 1 GiB and some seconds.
#[derive(Clone, Debug)]
pub struct EvaluationLimits {
    /// Size of the configuration's files together, in bytes.
    pub config: usize,
    /// Wall-clock time.
    pub time: Duration,
    /// CPU time, rounded up to seconds.
    pub cpu: Duration,
    /// Address space of each process (`RLIMIT_AS`). Nix evaluates in one process.
    pub memory: MemorySize,
    /// Files, mostly derivations, on a file system in memory.
    pub disk: MemorySize,
    /// Processes and threads of all evaluations.
    pub processes: u32,
    /// Printed output, in bytes: the result and its list of store objects.
    pub output: u64,
    /// Time for the build of all derivations together.
    pub build: Duration,
}

impl Default for EvaluationLimits {
    fn default() -> Self {
        Self {
            config: 8 << 20,
            time: Duration::from_secs(120),
            cpu: Duration::from_secs(90),
            memory: MemorySize::from_bytes(4 << 30),
            disk: MemorySize::from_bytes(512 << 20),
            processes: 128,
            output: 32 << 20,
            build: Duration::from_secs(20 * 60),
        }
    }
}

/// Default user of the evaluator.
pub const DEFAULT_USER: &str = "innkeeper-eval";
