//! Reads cgroups: their processes, their children and their events.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file that lists a cgroup's processes and takes new ones.
const PROCS: &str = "cgroup.procs";

/// Returns the processes in a cgroup and below it; none when it does not exist.
pub(in super::super) fn pids(cgroup: &Path) -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for dir in tree(cgroup)? {
        pids.extend(own_pids(&dir)?);
    }
    Ok(pids)
}

/// Reports whether a process is in a cgroup or below it.
pub(in super::super) fn contains(cgroup: &Path, pid: u32) -> io::Result<bool> {
    Ok(pids(cgroup)?.contains(&pid))
}

fn own_pids(dir: &Path) -> io::Result<Vec<u32>> {
    let text = match fs::read_to_string(dir.join(PROCS)) {
        // A cgroup that is removed meanwhile has no processes; a threaded one below a guest's service lists them in
        // its parent.
        Err(error) if is_gone(&error) || error.kind() == io::ErrorKind::Unsupported => {
            return Ok(Vec::new());
        }
        result => result?,
    };
    // 0 is a process outside of the daemon's pid namespace.
    Ok(text
        .lines()
        .filter_map(|line| line.parse().ok())
        .filter(|pid| *pid != 0)
        .collect())
}

/// Returns how many processes in a cgroup and below it the kernel killed at a limit of memory; 0 when that cannot be
/// read. The count of version 2 includes removed cgroups below; that of version 1 does not.
pub(in super::super) fn oom_kills(cgroup: &Path) -> u64 {
    if let Some(kills) = oom_kills_in(&cgroup.join("memory.events")) {
        return kills;
    }
    let dirs = tree(cgroup).unwrap_or_default();
    let kills = dirs
        .iter()
        .filter_map(|dir| oom_kills_in(&dir.join("memory.oom_control")));
    kills.fold(0, u64::saturating_add)
}

/// Returns the memory that a cgroup and those below it use, without inactive file cache; `None` when that cannot be read.
/// Version 2 counts in `memory.current`, version 1 in `memory.usage_in_bytes`.
pub(in super::super) fn memory(cgroup: &Path) -> Option<u64> {
    let number = |file: &str| {
        let text = fs::read_to_string(cgroup.join(file)).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let used = number("memory.current").or_else(|| number("memory.usage_in_bytes"))?;
    let stat = fs::read_to_string(cgroup.join("memory.stat")).unwrap_or_default();
    // Version 1 has the sum with the cgroups below under another name.
    let inactive = ["total_inactive_file ", "inactive_file "]
        .into_iter()
        .find_map(|name| stat.lines().find_map(|line| line.strip_prefix(name)))
        .and_then(|text| text.trim().parse::<u64>().ok());
    Some(used.saturating_sub(inactive.unwrap_or(0)))
}

/// Returns the processor time that the processes in a cgroup and below it have used; `None` when that cannot be read.
/// Version 2 counts it in `cpu.stat` of every cgroup, version 1 in `cpuacct.usage` of one hierarchy.
pub(in super::super) fn cpu_time(cgroup: &Path) -> Option<Duration> {
    if let Ok(stat) = fs::read_to_string(cgroup.join("cpu.stat"))
        && let Some(micros) = stat
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec "))
    {
        return micros.trim().parse().ok().map(Duration::from_micros);
    }
    let nanos = fs::read_to_string(cgroup.join("cpuacct.usage")).ok()?;
    nanos.trim().parse().ok().map(Duration::from_nanos)
}

/// Parses the line `oom_kill <number>` of a file.
fn oom_kills_in(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count?.trim().parse().ok()
}

/// Returns a cgroup and all below it, parents first. A guest decides the depth, so this does not recurse.
pub(super) fn tree(cgroup: &Path) -> io::Result<Vec<PathBuf>> {
    if !cgroup.exists() {
        return Ok(Vec::new());
    }
    let mut dirs = vec![cgroup.to_owned()];
    let mut next = 0;
    while let Some(dir) = dirs.get(next) {
        let below = children(dir)?;
        dirs.extend(below);
        next += 1;
    }
    Ok(dirs)
}

/// Returns the cgroups directly below a cgroup; none when it does not exist.
pub(in super::super) fn children(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut dirs = Vec::new();
    for entry in entries {
        match entry {
            Err(error) if is_gone(&error) => return Ok(Vec::new()),
            entry => {
                let entry = entry?;
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    dirs.push(entry.path());
                }
            }
        }
    }
    Ok(dirs)
}

/// Reports whether an error means that the cgroup is gone. Reading one that is being removed fails with ENODEV.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}
