//! Resource limits of preview builds.
//!
//! If Nix builds without a daemon, it runs in cgroups with limits that all preview builds share. Builders of a Nix daemon
//! belong to the cgroup of `nix-daemon.service`, which systemd limits (`modules/manager/builds.nix`,
//! `initial-install/debian/nix-daemon.conf`). Disk use is bounded by the space that must stay free, checked before and
//! during a build.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::{Cpus, Limits, MemorySize, STORE_DIR, UserIdCount};
use rustix::system::sysinfo;
use tokio::sync::Mutex;

use super::EvaluateError;
use crate::FileErrorExt;
use crate::closure::nix::Cgroups as Entered;
use crate::unit::cgroup::{Cgroups, MachineCgroups, emptied};

/// Interval of free-space checks during a build.
const SPACE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Time limit for a build's remaining processes to end. After it, the next build removes the cgroups.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(60);

/// Limits of preview builds, shared by all of them unless noted otherwise.
#[derive(Clone, Debug)]
pub struct BuildLimits {
    /// Name of the cgroup, in each hierarchy, for a Nix that builds without a daemon.
    pub cgroup: String,
    /// Memory, in percent of the host's.
    pub memory_percent: u32,
    /// CPU time, in percent of all CPUs.
    pub cpu_percent: u32,
    /// Processes and threads.
    pub tasks: u32,
    /// Space that must stay free on the disk of the Nix store.
    pub min_free: MemorySize,
    /// Maximum output of one builder. Nix counts all output, including its own log messages.
    pub log: MemorySize,
    /// Maximum time without output of one builder.
    pub silent: Duration,
    /// Maximum number of derivations to build for one preview.
    pub derivations: u64,
}

impl Default for BuildLimits {
    fn default() -> Self {
        Self {
            cgroup: "innkeeper-builds".to_owned(),
            memory_percent: 50,
            cpu_percent: 50,
            tasks: 4096,
            min_free: MemorySize::from_bytes(2 << 30),
            log: MemorySize::from_bytes(16 << 20),
            silent: Duration::from_secs(600),
            derivations: 2000,
        }
    }
}

impl BuildLimits {
    /// Returns the cgroup limits for this host.
    pub(super) fn of_host(&self) -> Limits {
        let info = sysinfo();
        let memory = u128::from(info.totalram) * u128::from(info.mem_unit);
        let memory = memory * u128::from(self.memory_percent) / 100;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let processors = u32::try_from(processors).unwrap_or(u32::MAX);
        Limits {
            memory: MemorySize::from_bytes(u64::try_from(memory).unwrap_or(u64::MAX)),
            cpus: Cpus::from_percent(processors.saturating_mul(self.cpu_percent).max(1)),
            tasks: self.tasks,
            user_ids: UserIdCount::default(),
            nesting: false,
        }
    }

    /// Fails unless the disk has space for a build.
    pub(super) fn require_space(&self) -> Result<(), EvaluateError> {
        let free = free_in_store()?;
        if free < self.min_free.bytes() {
            return Err(EvaluateError::StoreFull {
                free: MemorySize::from_bytes(free),
                needed: self.min_free,
            });
        }
        Ok(())
    }

    /// Waits until the disk has too little space, and returns that as an error. Ignores errors of the check itself.
    pub(super) async fn until_full(&self) -> EvaluateError {
        loop {
            tokio::time::sleep(SPACE_CHECK_INTERVAL).await;
            if let Err(error @ EvaluateError::StoreFull { .. }) = self.require_space() {
                return error;
            }
        }
    }
}

/// Returns the free bytes on the disk of the store, which may not exist yet.
fn free_in_store() -> Result<u64, EvaluateError> {
    let store = Path::new(STORE_DIR);
    let existing = store.ancestors().find(|path| path.exists());
    let existing = existing.unwrap_or(Path::new("/"));
    let stat = rustix::fs::statvfs(existing).on("inspect", existing)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The cgroups of all preview builds: created for the first build, removed after the last.
#[derive(Clone)]
pub(super) struct BuildCgroups {
    machine: Option<MachineCgroups>,
    limits: Limits,
    /// Number of running builds.
    builds: Arc<Mutex<usize>>,
}

impl BuildCgroups {
    pub(super) fn new(limits: &BuildLimits) -> Self {
        let cgroups = Cgroups::detect(&limits.cgroup).ok();
        Self {
            machine: cgroups.map(|cgroups| cgroups.machine("nix")),
            limits: limits.of_host(),
            builds: Arc::default(),
        }
    }

    /// Creates the cgroups for one more build. They exist until the slot is dropped.
    pub(super) async fn enter(&self) -> Result<(Entered, BuildSlot), EvaluateError> {
        let mut builds = self.builds.lock().await;
        let mut entered = Entered::default();
        if let Some(machine) = &self.machine {
            machine.ensure(&self.limits, None)?;
            entered.limits = machine.guests();
            entered.unified = machine.unified();
        }
        *builds += 1;
        Ok((entered, BuildSlot(Some(self.clone()))))
    }

    /// Removes the cgroups after the last build.
    async fn leave(self) {
        let last = {
            let mut builds = self.builds.lock().await;
            *builds = builds.saturating_sub(1);
            *builds == 0
        };
        let (Some(machine), true) = (&self.machine, last) else {
            return;
        };
        let ended = async { emptied(&machine.guest()).await.is_ok() };
        let ended = tokio::time::timeout(CLEANUP_TIMEOUT, ended).await;
        if !ended.unwrap_or(false) {
            return;
        }
        let builds = self.builds.lock().await;
        if *builds == 0 {
            for error in machine.remove().await {
                tracing::warn!(%error, "cannot remove a cgroup of builds");
            }
            for parent in machine
                .guests()
                .iter()
                .filter_map(|dir| dir.ancestors().nth(2))
            {
                // Best effort: a leftover parent is harmless.
                std::fs::remove_dir(parent).ok();
            }
        }
    }
}

/// Keeps the cgroups for one build.
pub(super) struct BuildSlot(Option<BuildCgroups>);

impl BuildSlot {
    /// Releases the slot after the build's last process has ended.
    pub(super) async fn release(mut self) {
        if let Some(cgroups) = self.0.take() {
            cgroups.leave().await;
        }
    }
}

impl Drop for BuildSlot {
    fn drop(&mut self) {
        if let (Some(cgroups), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(cgroups.leave());
        }
    }
}

/// Memory limit of the Nix daemon's builders where systemd runs it.
const NIX_DAEMON: &str = "/sys/fs/cgroup/system.slice/nix-daemon.service/memory.max";

/// Checks that builds are limited on this host. Returns `None` if they are.
pub(super) fn check(limits: &BuildLimits, by_itself: bool) -> Option<Check> {
    let (finding, remedy) = if by_itself {
        let missing = match Cgroups::detect(&limits.cgroup) {
            Ok(cgroups) => cgroups.missing(),
            Err(_) => vec!["memory", "cpu", "pids"],
        };
        if missing.is_empty() {
            return None;
        }
        (
            format!(
                "builds of previews have no limits for: {}",
                missing.join(", ")
            ),
            "Mount these cgroup controllers where innkeeperd may write, or build through the Nix daemon.",
        )
    } else {
        let limit = std::fs::read_to_string(NIX_DAEMON).ok()?;
        if limit.trim() != "max" {
            return None;
        }
        (
            "nix-daemon.service has no memory limit, and builds of previews are its processes"
                .to_owned(),
            "Run `make install` again, which installs limits for nix-daemon.service, then `systemctl daemon-reload`; or set MemoryMax= and TasksMax= with `systemctl edit nix-daemon`.",
        )
    };
    Some(Check {
        subject: "limits of builds".to_owned(),
        verdict: Verdict::Warning,
        finding,
        remedy: Some(remedy.to_owned()),
    })
}
