//! What builds of previews may use of the host.
//!
//! A Nix that builds by itself runs in cgroups with limits, which all builds of previews share. Builders of a Nix daemon
//! are in the cgroup of `nix-daemon.service`; its limits are systemd's to set (`modules/manager/builds.nix`,
//! `initial-install/debian/nix-daemon.conf`). What a build may write is limited by the space that must stay free: it is
//! looked at before a build, and while it runs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::{Cpus, Limits, MemorySize, STORE_DIR};
use rustix::system::sysinfo;
use tokio::sync::Mutex;

use super::EvaluateError;
use crate::FileErrorExt;
use crate::closure::nix::Cgroups as Entered;
use crate::unit::cgroup::{Cgroups, MachineCgroups, emptied};

/// How often the free space is looked at during a build.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long what is left of a build may take to end before its cgroups are left to the next build.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much builds of previews may take, all of them together if nothing else is said.
#[derive(Clone, Debug)]
pub struct BuildLimits {
    /// The name of the cgroup in which a Nix that builds by itself runs, in each hierarchy.
    pub cgroup: String,
    /// Memory, in percent of the host's.
    pub memory_percent: u32,
    /// Processor time, in percent of all processors.
    pub cpu_percent: u32,
    /// Processes and threads.
    pub tasks: u32,
    /// What must stay free on the disk of the Nix store.
    pub min_free: MemorySize,
    /// How much one builder may print. Nix counts all output, also what it takes for its own log.
    pub log: MemorySize,
    /// How long one builder may print nothing.
    pub silent: Duration,
    /// How many derivations one preview may have built.
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
    /// The limits of the cgroups on this host.
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
        }
    }

    /// Checks that there is space for a build.
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

    /// Waits until there is too little space, and returns that as an error. One that cannot be read is none.
    pub(super) async fn until_full(&self) -> EvaluateError {
        loop {
            tokio::time::sleep(INTERVAL).await;
            if let Err(error @ EvaluateError::StoreFull { .. }) = self.require_space() {
                return error;
            }
        }
    }
}

/// Bytes that are free where the store is, or will be.
fn free_in_store() -> Result<u64, EvaluateError> {
    let store = Path::new(STORE_DIR);
    let there = store.ancestors().find(|path| path.exists());
    let there = there.unwrap_or(Path::new("/"));
    let of = rustix::fs::statvfs(there).on("look at", there)?;
    Ok(of.f_bavail.saturating_mul(of.f_frsize))
}

/// The cgroups of all builds of previews: made for the first one, removed after the last.
#[derive(Clone)]
pub(super) struct BuildCgroups {
    machine: Option<MachineCgroups>,
    limits: Limits,
    /// How many builds are in there.
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

    /// Makes the cgroups for one more build. They are there until the guard is dropped.
    pub(super) async fn enter(&self) -> Result<(Entered, Room), EvaluateError> {
        let mut builds = self.builds.lock().await;
        let mut entered = Entered::default();
        if let Some(machine) = &self.machine {
            machine.ensure(&self.limits, None)?;
            entered.limits = machine.guests();
            entered.unified = machine.unified();
        }
        *builds += 1;
        Ok((entered, Room(Some(self.clone()))))
    }

    /// Removes the cgroups when the last build has ended.
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
        if !tokio::time::timeout(PATIENCE, ended).await.unwrap_or(false) {
            return;
        }
        let builds = self.builds.lock().await;
        if *builds == 0 {
            for error in machine.remove().await {
                tracing::warn!(%error, "a cgroup of builds is left");
            }
            for parent in machine
                .guests()
                .iter()
                .filter_map(|dir| dir.ancestors().nth(2))
            {
                // One that is left is of no consequence.
                std::fs::remove_dir(parent).ok();
            }
        }
    }
}

/// The place of a build in the cgroups.
pub(super) struct Room(Option<BuildCgroups>);

impl Room {
    /// Gives the place back, after the build's last process has ended.
    pub(super) async fn leave(mut self) {
        if let Some(cgroups) = self.0.take() {
            cgroups.leave().await;
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let (Some(cgroups), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(cgroups.leave());
        }
    }
}

/// What limits the Nix daemon's builders, where systemd runs it.
const NIX_DAEMON: &str = "/sys/fs/cgroup/system.slice/nix-daemon.service/memory.max";

/// Looks whether builds are limited on this host. Reports only what is missing.
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
                "builds of previews have no limits of: {}",
                missing.join(", ")
            ),
            "Mount these cgroup controllers where innkeeperd may write, or let builds go through the Nix daemon.",
        )
    } else {
        let limit = std::fs::read_to_string(NIX_DAEMON).ok()?;
        if limit.trim() != "max" {
            return None;
        }
        (
            "nix-daemon.service has no limit of memory, and builds of previews are its processes"
                .to_owned(),
            "Run `make install` again, which brings limits for nix-daemon.service, then `systemctl daemon-reload`; or set MemoryMax= and TasksMax= with `systemctl edit nix-daemon`.",
        )
    };
    Some(Check {
        subject: "limits of builds".to_owned(),
        verdict: Verdict::Warning,
        finding,
        remedy: Some(remedy.to_owned()),
    })
}
