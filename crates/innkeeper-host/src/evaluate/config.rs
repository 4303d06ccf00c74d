//! How evaluations are set up.

use std::path::PathBuf;
use std::time::Duration;

use innkeeper_model::MemorySize;

use super::BuildLimits;
use crate::closure::NixConfig;

/// Where everything is, and how much an evaluation may take.
#[derive(Clone, Debug)]
pub struct EvaluatorConfig {
    /// The host's Nix, which builds. Builders of previews always run in Nix's sandbox, whatever the options
    /// say.
    pub nix: NixConfig,
    /// nixpkgs: a directory, best in the store; everything else is copied there once.
    pub nixpkgs: PathBuf,
    /// The hash that nixpkgs must have, as a flake's lock file spells it (`sha256-…`). A directory that
    /// somebody can change should have one.
    pub nixpkgs_hash: Option<String>,
    /// The module that comes before every preview-config.nix: a file. It can refer to others in its folder.
    pub base_module: PathBuf,
    /// Nix's name of the machine, such as `x86_64-linux`.
    pub system: String,
    /// Who evaluates: a user's name, or a number that need not stand in /etc/passwd. It must own nothing.
    pub user: String,
    /// The directory for what an evaluation needs while it runs, `<state>/evaluations`. Nobody else writes
    /// there.
    pub scratch: PathBuf,
    /// The directory of the GC roots, `/nix/var/nix/gcroots/innkeeper-evaluations`.
    pub roots: PathBuf,
    /// How much one evaluation may take.
    pub limits: EvaluationLimits,
    /// How much builds may take.
    pub builds: BuildLimits,
    /// How many evaluations run at the same time, at least one.
    pub concurrent: usize,
}

/// How much one evaluation may take. NixOS's own evaluation takes about 1 GiB and some seconds.
#[derive(Clone, Debug)]
pub struct EvaluationLimits {
    /// The largest preview-config.nix, in bytes.
    pub config: usize,
    /// From start to end.
    pub time: Duration,
    /// Processor time, rounded up to seconds.
    pub cpu: Duration,
    /// Address space of each process (`RLIMIT_AS`). Nix evaluates in one.
    pub memory: MemorySize,
    /// All that is written, derivations above all. It is kept in memory.
    pub disk: MemorySize,
    /// Processes and threads of all evaluations.
    pub processes: u32,
    /// What is printed, in bytes: the answer and the list of what it refers to.
    pub output: u64,
    /// The build of all derivations together, and so of each one.
    pub build: Duration,
}

impl Default for EvaluationLimits {
    fn default() -> Self {
        Self {
            config: 256 << 10,
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

/// The user who evaluates, unless the configuration names another.
pub const DEFAULT_USER: &str = "innkeeper-eval";
