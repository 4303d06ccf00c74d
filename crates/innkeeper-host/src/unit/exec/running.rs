//! The processes of one command: their cgroup and their end.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use innkeeper_model::Backoff;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;

use super::super::cgroup::{self, PAUSE};
use super::super::leader;
use super::super::process::Process;
use super::super::shim::FileId;
use super::namespaces::Namespaces;
use crate::{FileError, FileErrorExt};

/// Prefix of the cgroups whose processes are killed when their session ends.
const ATTACHED: &str = "run-";

/// Prefix of the cgroups whose processes outlive their session and the daemon.
const DETACHED: &str = "detached-";

/// The pauses between attempts to kill a command's processes.
const ATTEMPTS: Backoff = Backoff::new(PAUSE, Duration::from_secs(1));

/// Number of polls for the start of a command before the pauses between them grow, as between those attempts.
const QUICK_POLLS: u32 = 100;

/// Numbers the cgroups of one daemon.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// The cgroups of one command, one in each hierarchy. The first one lists its processes.
#[derive(Clone, Debug)]
pub(super) struct Group {
    dirs: Vec<PathBuf>,
    /// `false` when the guest's limit of cgroups is reached and the command shares the one of all commands.
    is_own: bool,
}

impl Group {
    /// Creates the cgroups of one command below those of all commands in the guest.
    ///
    /// A guest may have exhausted its cgroups. Commands must still run, to diagnose that: the command then shares the
    /// parent, and only its first process can be killed.
    pub(super) fn make(parents: &[PathBuf], detached: bool) -> Result<Self, FileError> {
        for dir in parents {
            cgroup::make(dir)?;
        }
        let shared = || Self {
            dirs: parents.to_vec(),
            is_own: false,
        };
        let Some(first) = parents.first() else {
            return Ok(shared());
        };
        let prefix = if detached { DETACHED } else { ATTACHED };
        let name = loop {
            let name = format!("{prefix}{}", COUNT.fetch_add(1, Ordering::Relaxed));
            let dir = first.join(&name);
            match fs::create_dir(&dir) {
                // Left by an earlier daemon.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(shared()),
                result => {
                    result.on("create", &dir)?;
                    break name;
                }
            }
        };
        let dirs: Vec<_> = parents.iter().map(|dir| dir.join(&name)).collect();
        for dir in &dirs {
            cgroup::make(dir)?;
        }
        Ok(Self { dirs, is_own: true })
    }

    pub(super) fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }

    fn tracking(&self) -> &Path {
        self.dirs.first().map_or(Path::new(""), PathBuf::as_path)
    }

    /// Waits until no process is left and removes the cgroups. With `kill`, kills the processes until then: version 1
    /// cannot kill all at once, so processes that fork meanwhile are killed by the next attempt. Those of a paused guest end
    /// only when it continues, which may take days: the attempts become rare.
    async fn remove(self, kill: bool) -> Result<(), FileError> {
        if !self.is_own {
            return Ok(());
        }
        let tracking = self.tracking();
        let mut attempt = 0;
        while !cgroup::pids(tracking).on("list", tracking)?.is_empty() {
            if kill {
                cgroup::kill(tracking)?;
                attempt += 1;
                tokio::time::sleep(ATTEMPTS.delay(attempt)).await;
            } else {
                cgroup::emptied(tracking).await?;
            }
        }
        for dir in &self.dirs {
            cgroup::remove(dir).await?;
        }
        Ok(())
    }

    /// Runs [`Self::remove`] in the background. Without a runtime, the next daemon's [`sweep`] removes the cgroups.
    fn remove_later(self, kill: bool) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = self.remove(kill).await {
                    tracing::warn!("{}", innkeeper_model::chain(&error));
                }
            });
        }
    }
}

/// Kills the commands whose daemon was killed before their session ended, and removes the cgroups of
/// detached ones that have ended.
pub(in super::super) fn sweep(parents: &[PathBuf]) -> Result<(), FileError> {
    let Some(first) = parents.first() else {
        return Ok(());
    };
    for dir in cgroup::children(first).on("list", first)? {
        let Some(name) = dir.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let attached = name.starts_with(ATTACHED);
        if !attached && !name.starts_with(DETACHED) {
            continue;
        }
        let group = Group {
            dirs: parents.iter().map(|parent| parent.join(name)).collect(),
            is_own: true,
        };
        if attached {
            cgroup::kill(&dir)?;
        }
        group.remove_later(attached);
    }
    Ok(())
}

/// A command's processes. Unless it is detached, dropping this kills all of them.
pub(super) struct Running {
    pub(super) child: Child,
    pub(super) group: Group,
    pub(super) detached: bool,
    /// Held open: nsenter opens them through the daemon's `/proc/<pid>/fd`.
    pub(super) _namespaces: Namespaces,
}

impl Running {
    /// Kills nsenter first, which could otherwise start the command after everything else was killed.
    fn kill(&mut self) -> Result<(), FileError> {
        let tracking = self.group.tracking().to_owned();
        if self.group.is_own {
            // It may have ended already.
            drop(self.child.start_kill());
            return cgroup::kill(&tracking);
        }
        // Its id is not reused before it is waited for.
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            return Ok(());
        };
        // nsenter only waits for the command, which would outlive it. Once stopped, nsenter cannot start another one.
        kill_process(pid, Signal::STOP)
            .map_err(io::Error::from)
            .and_then(|()| kill_children(pid, &tracking))
            .and_then(|()| self.child.start_kill())
            .on("kill a command in", &tracking)
    }

    /// Waits until nsenter's child has executed the command. Returns the exit status when it has ended, or could not be
    /// executed.
    pub(super) async fn started(&mut self) -> io::Result<Option<std::process::ExitStatus>> {
        let mut polls = 0_u32;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if let Some(nsenter) = self.child.id()
                && has_executed(nsenter, self.group.tracking())?
            {
                return Ok(None);
            }
            // It takes milliseconds, unless the guest is paused meanwhile.
            polls = polls.saturating_add(1);
            let pause = ATTEMPTS.delay(polls.saturating_sub(QUICK_POLLS));
            tokio::time::sleep(pause).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.detached
            && let Err(error) = self.kill()
        {
            tracing::warn!("{}", innkeeper_model::chain(&error));
        }
        self.group.clone().remove_later(!self.detached);
    }
}

/// Reports whether a child of nsenter executes another program than nsenter.
fn has_executed(nsenter: u32, cgroup: &Path) -> io::Result<bool> {
    let program = |pid: u32| FileId::of(format!("/proc/{pid}/exe"));
    let Ok(own) = program(nsenter) else {
        return Ok(false);
    };
    Ok(cgroup::pids(cgroup)?.into_iter().any(|pid| {
        leader::parent(pid) == Some(nsenter) && program(pid).is_ok_and(|other| other != own)
    }))
}

fn kill_children(parent: Pid, cgroup: &Path) -> io::Result<()> {
    let parent = u32::try_from(parent.as_raw_nonzero().get()).map_err(io::Error::other)?;
    for pid in cgroup::pids(cgroup)? {
        if leader::parent(pid) == Some(parent)
            && let Some(process) = Process::in_cgroup(pid, cgroup)?
        {
            process.signal(Signal::KILL)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the kernel's first version of freezers, the processes of a paused guest do not end before it continues.
    #[test]
    fn attempts_to_kill_a_paused_command_become_rare() {
        let hour = Duration::from_secs(3600);
        let mut spent = Duration::ZERO;
        let attempts = (1..).take_while(|attempt| {
            spent += ATTEMPTS.delay(*attempt);
            spent < hour
        });
        assert!(attempts.count() < 3610);
        assert_eq!(ATTEMPTS.delay(1), PAUSE);
    }
}
