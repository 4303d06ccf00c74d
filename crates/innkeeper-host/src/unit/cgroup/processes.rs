//! Creates, kills and removes cgroups.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use super::super::process::Process;
use super::listing::{contains, is_gone, pids, tree};
use crate::{FileError, FileErrorExt};

/// Interval of polls for changes that the kernel does not announce.
pub(in super::super) const PAUSE: Duration = Duration::from_millis(5);

/// The polls for which an empty cgroup may stay busy.
const RMDIR_ATTEMPTS: u32 = 200;

/// Creates a cgroup unless it exists.
pub(in super::super) fn make(dir: &Path) -> Result<(), FileError> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error).on("create", dir),
        _ => Ok(()),
    }
}

/// Sends SIGKILL to every process in a cgroup and below it. Returns before they have ended.
pub(in super::super) fn kill(cgroup: &Path) -> Result<(), FileError> {
    // Version 2 since Linux 5.14: atomic, so no process can fork meanwhile.
    if fs::write(cgroup.join("cgroup.kill"), "1").is_ok() {
        return Ok(());
    }
    for pid in pids(cgroup).on("list", cgroup)? {
        if let Some(process) = Process::in_cgroup(pid, cgroup).on("look into", cgroup)? {
            process
                .signal(Signal::KILL)
                .on("kill the processes of", cgroup)?;
        }
    }
    Ok(())
}

/// Returns when no process is left in a cgroup and below it.
pub(crate) async fn emptied(cgroup: &Path) -> Result<(), FileError> {
    loop {
        let pids = pids(cgroup).on("list", cgroup)?;
        // The oldest process mostly ends last.
        let Some(pid) = pids.into_iter().min() else {
            return Ok(());
        };
        if let Some(process) = Process::in_cgroup(pid, cgroup).on("look into", cgroup)? {
            process.ended().await.on("watch the processes of", cgroup)?;
        }
        // A process may still be listed between its end and its reaping.
        if contains(cgroup, pid).on("list", cgroup)? {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Removes a cgroup and all below it.
pub(in super::super) async fn remove(cgroup: &Path) -> Result<(), FileError> {
    for dir in tree(cgroup).on("list", cgroup)?.into_iter().rev() {
        let mut attempts = RMDIR_ATTEMPTS;
        loop {
            match fs::remove_dir(&dir) {
                // Without processes, it is busy only until the kernel has cleaned up.
                Err(error)
                    if error.kind() == io::ErrorKind::ResourceBusy
                        && attempts > 0
                        && pids(&dir).on("list", &dir)?.is_empty() =>
                {
                    attempts -= 1;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) if is_gone(&error) => break,
                result => {
                    result.on("remove", &dir)?;
                    break;
                }
            }
        }
    }
    Ok(())
}
