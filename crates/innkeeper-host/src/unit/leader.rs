//! Finds a guest's first process in the kernel's state, so that no process id needs to be stored.

use std::fs;
use std::io;
use std::path::Path;

use super::cgroup;
use super::shim::{FileId, Shim};

/// A guest's first process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leader {
    /// Its id on the host.
    pub(super) pid: u32,
    /// Its parent: nspawn, unless nspawn was killed.
    pub(super) parent: u32,
}

impl Leader {
    /// Reports whether it executes the shim. For a moment before, it is a fork of nspawn.
    pub(super) fn is_shim(self, shim: &Shim) -> bool {
        FileId::of(format!("/proc/{}/exe", self.pid)).is_ok_and(|program| shim.is(program))
    }

    /// Reports whether it executes the shim and no system call filter is in force for it: nothing of the guest runs in it.
    pub(super) fn is_unfiltered_shim(self, shim: &Shim) -> bool {
        let has_none =
            Status::read(self.pid).is_some_and(|status| status.is_leader && !status.has_filters);
        // Afterwards: a process that executes another program never executes the shim again without filters.
        has_none && self.is_shim(shim)
    }

    /// Reports whether it handles or blocks the shutdown signal. The kernel drops other signals to the first process of a
    /// namespace (pid_namespaces(7)), so an init that has just started would miss it.
    pub(super) fn handles_shutdown(self) -> bool {
        Status::read(self.pid).is_some_and(|status| status.accepted & SHUTDOWN != 0)
    }
}

/// Finds the first process of the guest in a cgroup.
///
/// It has id 1 in a pid namespace that is a child of the daemon's. Containers inside the
/// guest have first processes too; those are one namespace further down.
pub(super) fn find(cgroup: &Path) -> io::Result<Option<Leader>> {
    let mut pids = cgroup::pids(cgroup)?;
    // It is among the oldest, so its id is mostly among the lowest.
    pids.sort_unstable();
    Ok(pids.into_iter().find_map(|pid| {
        let status = Status::read(pid)?;
        status.is_leader.then_some(Leader {
            pid,
            parent: status.parent,
        })
    }))
}

/// Returns the parent of a process.
pub(super) fn parent(pid: u32) -> Option<u32> {
    Status::read(pid).map(|status| status.parent)
}

/// SIGRTMIN+3, which is 37 in the C library's numbering, as a bit of a signal set.
const SHUTDOWN: u64 = 1 << (37 - 1);

/// Returns the capability bounding set of a process.
pub(super) fn bounding_set(pid: u32) -> Option<u64> {
    Status::read(pid).map(|status| status.bounding_set)
}

struct Status {
    parent: u32,
    is_leader: bool,
    /// The signals that it handles or blocks.
    accepted: u64,
    bounding_set: u64,
    /// System call filters are in force.
    has_filters: bool,
}

impl Status {
    /// Returns `None` for a process that has ended.
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
    }

    /// Parses `/proc/<pid>/status`. `NSpid` has the process's id in each pid namespace, the daemon's first
    /// (proc_pid_status(5)).
    fn parse(status: &str) -> Option<Self> {
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        };
        if field("State")?.trim_start().starts_with(['Z', 'X']) {
            return None;
        }
        // Sets of signals and of capabilities are written alike.
        let set = |name| u64::from_str_radix(field(name)?.trim(), 16).ok();
        let numbers: Vec<_> = field("NSpid")?.split_ascii_whitespace().collect();
        Some(Self {
            parent: field("PPid")?.trim().parse().ok()?,
            is_leader: matches!(numbers[..], [_, "1"]),
            accepted: set("SigCgt")? | set("SigBlk")?,
            bounding_set: set("CapBnd")?,
            // A kernel without filters has no such field.
            has_filters: field("Seccomp").is_some_and(|mode| mode.trim() != "0"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_handles_shutdown_once_it_catches_or_blocks_the_signal() {
        let accepts = |blocked: &str, caught: &str| {
            let text = text("S (sleeping)", "70\t1")
                .replace("SigBlk:\t0", &format!("SigBlk:\t{blocked}"))
                .replace("SigCgt:\t0", &format!("SigCgt:\t{caught}"));
            Status::parse(&text).expect("a status").accepted & SHUTDOWN != 0
        };
        assert!(!accepts("0", "0000000000014000"));
        assert!(accepts("0", "0000001000014000"));
        assert!(accepts("0000001000000000", "0"));
    }

    fn text(state: &str, nspid: &str) -> String {
        format!(
            "Name:\tx\nState:\t{state}\nPid:\t70\nPPid:\t69\nNSpid:\t{nspid}\n\
             SigBlk:\t0\nSigCgt:\t0\nCapBnd:\t00000000b1ecbdff\n"
        )
    }

    fn status(state: &str, nspid: &str) -> Option<bool> {
        Status::parse(&text(state, nspid)).map(|status| status.is_leader)
    }

    #[test]
    fn filters_are_in_force_in_every_mode_but_0() {
        let has_filters = |line: &str| {
            let text = text("S (sleeping)", "70\t1") + line;
            Status::parse(&text).expect("a status").has_filters
        };
        assert!(!has_filters(""));
        assert!(!has_filters("Seccomp:\t0\nSeccomp_filters:\t0\n"));
        assert!(has_filters("Seccomp:\t2\nSeccomp_filters:\t3\n"));
    }

    #[test]
    fn leader_is_number_one_exactly_one_namespace_down() {
        assert_eq!(status("S (sleeping)", "70\t1"), Some(true));
        assert_eq!(status("S (sleeping)", "70"), Some(false));
        assert_eq!(status("S (sleeping)", "1"), Some(false));
        assert_eq!(status("S (sleeping)", "70\t12"), Some(false));
        assert_eq!(status("S (sleeping)", "70\t12\t1"), Some(false));
        assert_eq!(status("S (sleeping)", "70\t1\t1"), Some(false));
        assert_eq!(status("Z (zombie)", "70\t1"), None);
        assert_eq!(Status::parse("Name:\tx\n").map(|s| s.is_leader), None);
    }
}
