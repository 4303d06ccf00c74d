//! Guests on a host without systemd: each has a shim, which outlives the daemon.
//!
//! ```text
//! innkeeperd ─ ─ starts ─ ─► shim supervise ──► systemd-nspawn ──► shim door ═► init
//!                            log, exit status    namespaces         waits
//! ```
//!
//! `═►` is exec.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use async_trait::async_trait;
use innkeeper_facilities::{Console, Found};
use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::{Guest, GuestName, Ownership};
use tokio::sync::oneshot;

use super::cgroup::{Cgroups, MachineCgroups};
use super::config::UnitConfig;
use super::error::UnitError;
use super::shim::Shim;
use super::supervisor::{End, Ended, Groups, Supervisor};
use super::waiting_shim::WaitingShim;
use super::{cgroup, checks, console, nspawn, supervisor};
use crate::tree::blocking;
use crate::{FileError, FileErrorExt, command};

/// Supervises each guest with a shim.
pub(super) struct Direct {
    config: UnitConfig,
    cgroups: Cgroups,
    shim: PathBuf,
}

impl Direct {
    pub(super) fn new(config: &UnitConfig) -> Result<Self, UnitError> {
        Self::with_cgroups(config, Cgroups::detect(&config.cgroup)?)
    }

    pub(super) fn with_cgroups(config: &UnitConfig, cgroups: Cgroups) -> Result<Self, UnitError> {
        Ok(Self {
            shim: Shim::install(&config.runtime_dir)?.path().to_owned(),
            config: config.clone(),
            cgroups,
        })
    }

    fn cgroups_of(&self, guest: &GuestName) -> MachineCgroups {
        self.cgroups.machine(&self.config.machine(guest))
    }

    /// Returns a cgroup's owner; `None` when it does not exist. Hierarchies of version 1 may have no marks.
    fn owner_of(&self, cgroup: &Path) -> Result<Option<Ownership>, FileError> {
        match self.config.identity.owner_of(cgroup) {
            Ok(owner) => Ok(Some(owner.unwrap_or(Ownership::Unmarked))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).on("look at", cgroup),
        }
    }

    /// Runs a program in cgroups that do not exist yet.
    async fn run_in(
        &self,
        groups: &MachineCgroups,
        program: &nspawn::Command,
    ) -> Result<(), UnitError> {
        let (made, identity) = (groups.clone(), self.config.identity.clone());
        let limits = supervisor::APART;
        blocking(move || Ok::<_, UnitError>(made.ensure(&limits, Some(&identity))?)).await?;
        let mut command = command::command(&self.shim);
        command.arg("join");
        for dir in groups.guests() {
            command.arg("--cgroup").arg(dir);
        }
        command
            .arg("--")
            .args(&program.words)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .envs(program.environment.iter().copied())
            .current_dir("/")
            .process_group(0);
        command::run_command(command, b"", supervisor::APART_LIMIT).await?;
        Ok(())
    }

    /// Starts the shim so that it outlives the daemon. It waits for a byte on its standard input, and ends without one.
    fn spawn(
        &self,
        guest: &GuestName,
        groups: &MachineCgroups,
        nspawn: &nspawn::Command,
    ) -> Result<WaitingShim, UnitError> {
        let run = self.config.run_dir(guest);
        let shim = &self.shim;
        let mut command = command::command(shim);
        command
            .arg("supervise")
            .arg("--log")
            .arg(match run.home().is_symlink() {
                true => run.home().join("console.log"),
                false => self.config.console_log(guest),
            })
            .arg("--log-limit")
            .arg(self.config.log_limit.to_string())
            .arg("--exit")
            .arg(run.exit())
            .arg("--cgroup")
            .arg(groups.shim());
        for dir in groups.guests() {
            command.arg("--guest-cgroup").arg(dir);
        }
        command
            .arg("--")
            .args(&nspawn.words)
            // The guest must not see the daemon's environment.
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .envs(nspawn.environment.iter().copied())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // An interrupt from the terminal must end only the daemon.
            .process_group(0)
            .kill_on_drop(false);
        command
            .spawn()
            .and_then(WaitingShim::watch)
            .map_err(|source| command::start_error(shim.as_os_str(), source).into())
    }
}

/// Ends the processes of a machine, and removes its cgroups.
async fn end(groups: &MachineCgroups) -> Result<(), UnitError> {
    let tracking = groups.tracking();
    cgroup::kill(&tracking)?;
    cgroup::emptied(&tracking).await?;
    UnitError::all(groups.remove().await)
}

#[async_trait]
impl Supervisor for Direct {
    fn name(&self) -> &'static str {
        "direct"
    }

    fn registers(&self) -> bool {
        false
    }

    fn groups(&self, guest: &GuestName) -> Groups {
        let cgroups = self.cgroups_of(guest);
        Groups {
            all: cgroups.tracking(),
            guest: cgroups.guest(),
            memory: cgroups.memory(),
            cpu: cgroups.cpu(),
            freezer: cgroups.freezer(),
            exec: cgroups.exec(),
        }
    }

    async fn owner(&self, guest: &GuestName) -> Result<Option<(Ownership, String)>, UnitError> {
        let cgroup = self.cgroups_of(guest).tracking();
        let owner = self.owner_of(&cgroup)?;
        Ok(owner.map(|owner| (owner, cgroup.display().to_string())))
    }

    async fn found(&self) -> Result<Vec<Found>, UnitError> {
        let machines = self.cgroups.machines()?;
        let mut found = Vec::new();
        for (machine, dir) in machines {
            // A cgroup that is removed meanwhile has no owner.
            if let Some(guest) = self.config.guest_of(&machine)
                && let Some(ownership) = self.owner_of(&dir)?
            {
                found.push(Found {
                    guest: Some(guest),
                    object: dir.display().to_string(),
                    ownership,
                });
            }
        }
        Ok(found)
    }

    async fn prepare(
        &self,
        guest: &Guest,
        nspawn: &nspawn::Command,
    ) -> Result<Option<WaitingShim>, UnitError> {
        let groups = self.cgroups_of(&guest.name);
        let (made, limits) = (groups.clone(), guest.limits);
        let identity = self.config.identity.clone();
        blocking(move || Ok::<_, UnitError>(made.ensure(&limits, Some(&identity))?)).await?;
        self.spawn(&guest.name, &groups, nspawn).map(Some)
    }

    async fn start(
        &self,
        _: &Guest,
        _: &nspawn::Command,
        shim: Option<WaitingShim>,
    ) -> Result<Option<oneshot::Receiver<()>>, UnitError> {
        // `prepare` always has one.
        let Some(shim) = shim else {
            return Ok(None);
        };
        let started = shim.start().await;
        let error = |error| command::start_error(self.shim.as_os_str(), error);
        Ok(Some(started.map_err(error)?))
    }

    async fn limit(&self, guest: &Guest) -> Result<(), UnitError> {
        let (groups, limits) = (self.cgroups_of(&guest.name), guest.limits);
        blocking(move || Ok::<_, UnitError>(groups.ensure(&limits, None)?)).await
    }

    async fn run_apart(&self, name: &str, program: &nspawn::Command) -> Result<(), UnitError> {
        let groups = self.cgroups.machine(&self.config.machine_of(name));
        end(&groups).await?;
        let result = self.run_in(&groups, program).await;
        result.and(end(&groups).await)
    }

    fn mounts(&self) -> Option<&'static Path> {
        None
    }

    fn confine(&self, _: &GuestName) -> Result<(), UnitError> {
        // The guest's cgroups are created with these limits.
        Ok(())
    }

    async fn ended(&self, guest: &GuestName) -> Result<Ended, UnitError> {
        let path = self.config.run_dir(guest).exit();
        Ok(match fs::read_to_string(path) {
            Ok(status) => status.trim().parse().map_or(Ended::Unknown, Ended::With),
            Err(_) if self.cgroups_of(guest).exists() => Ended::Unknown,
            Err(_) => Ended::Nothing,
        })
    }

    async fn clear(&self, guest: &GuestName) -> Vec<UnitError> {
        self.cgroups_of(guest).remove().await
    }

    async fn console(
        &self,
        guest: &GuestName,
        _: Option<&str>,
        lines: usize,
        end: Option<End>,
    ) -> Result<Console, UnitError> {
        // The log lies beside the guest's file tree, so it has no lines of an earlier guest.
        let path = self.config.console_log(guest);
        match console::read(&path, lines, end).await {
            // The shim creates the log with the guest's first output.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && self.cgroups_of(guest).exists() =>
            {
                Ok(Box::pin(futures_util::stream::empty()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(UnitError::NoLog {
                guest: guest.clone(),
            }),
            result => Ok(result.on("read", path)?),
        }
    }

    fn check(&self) -> Vec<Check> {
        let missing = self.cgroups.missing();
        if missing.is_empty() {
            let finding = "memory, processors and tasks of guests are limited";
            return vec![checks::check("limits", Verdict::Ok, finding)];
        }
        let finding = format!(
            "without effect, because the controller is missing: {}",
            missing.join(", ")
        );
        vec![Check {
            remedy: Some("Mount these cgroup controllers where innkeeperd may write; in a container, give it cgroups of its own.".to_owned()),
            ..checks::check("limits", Verdict::Warning, finding)
        }]
    }
}
