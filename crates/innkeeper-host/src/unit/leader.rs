//! Finds a guest's first process by what the kernel says, so that no process id needs to be kept.

use std::fs;
use std::io;
use std::path::Path;

use super::cgroup;
use super::shim::{FileId, Shim};

/// A guest's first process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leader {
    /// Its number on the host.
    pub(super) pid: u32,
    /// The process that made it: nspawn, unless nspawn was killed.
    pub(super) parent: u32,
}

impl Leader {
    /// Whether it executes the shim. Before that, for a moment, it is a copy of nspawn.
    pub(super) fn is_shim(self, shim: &Shim) -> bool {
        FileId::of(format!("/proc/{}/exe", self.pid)).is_ok_and(|program| shim.is(program))
    }

    /// Whether it would notice that it is asked to shut down. The kernel drops signals to the first process
    /// of a namespace that it neither handles nor holds back (pid_namespaces(7)), so an init that has only
    /// just begun would never hear of it.
    pub(super) fn listens(self) -> bool {
        Status::read(self.pid).is_some_and(|status| status.heard & SHUTDOWN != 0)
    }
}

/// The first process of the guest in a cgroup, if there is one.
///
/// It is the process that is number 1 in a pid namespace made directly from ours. Containers inside the
/// guest have first processes too; those are one namespace further down.
pub(super) fn find(cgroup: &Path) -> io::Result<Option<Leader>> {
    let mut pids = cgroup::pids(cgroup)?;
    // It is among the oldest, so it mostly has one of the lowest numbers.
    pids.sort_unstable();
    Ok(pids.into_iter().find_map(|pid| {
        let status = Status::read(pid)?;
        status.is_leader.then_some(Leader {
            pid,
            parent: status.parent,
        })
    }))
}

/// The process that made or took over a process.
pub(super) fn parent(pid: u32) -> Option<u32> {
    Status::read(pid).map(|status| status.parent)
}

/// SIGRTMIN+3, which is 37 for everybody who counts like the C library, as a bit of a set of signals.
const SHUTDOWN: u64 = 1 << (37 - 1);

/// The capabilities that a process and its children can have at most.
pub(super) fn bounding_set(pid: u32) -> Option<u64> {
    Status::read(pid).map(|status| status.bounding_set)
}

struct Status {
    parent: u32,
    is_leader: bool,
    /// The signals that it handles or holds back.
    heard: u64,
    bounding_set: u64,
}

impl Status {
    /// Nothing for a process that has ended.
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
    }

    /// `NSpid` has the process's number in each pid namespace, ours first (proc_pid_status(5)).
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
            heard: set("SigCgt")? | set("SigBlk")?,
            bounding_set: set("CapBnd")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_init_listens_once_it_handles_or_holds_back_the_signal() {
        let heard = |blocked: &str, caught: &str| {
            let text = text("S (sleeping)", "70\t1")
                .replace("SigBlk:\t0", &format!("SigBlk:\t{blocked}"))
                .replace("SigCgt:\t0", &format!("SigCgt:\t{caught}"));
            Status::parse(&text).expect("a status").heard & SHUTDOWN != 0
        };
        assert!(!heard("0", "0000000000014000"));
        assert!(heard("0", "0000001000014000"));
        assert!(heard("0000001000000000", "0"));
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
    fn the_leader_is_number_one_exactly_one_namespace_down() {
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
