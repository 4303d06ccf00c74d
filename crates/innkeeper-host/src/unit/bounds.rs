//! Limits a guest's use of kernel tables that all guests share with the host.
//!
//! The kernel charges each object to the user of its process in the guest's user namespace, and again to the user who
//! created that namespace: the host's root, for all guests (`kernel/ucount.c`). So the namespace gets its own limits,
//! which apply to each user of the guest. Changing them needs CAP_SYS_RESOURCE over the namespace, which guests and
//! commands of `agent exec` lack. docs/security.md ("Limits that guests share") lists the resources without a limit.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use innkeeper_model::GuestName;
use rustix::fs::CWD;
use rustix::mount::{FsPickFlags, fsconfig_reconfigure, fsconfig_set_string, fspick};

use super::error::UnitError;
use super::process::Process;
use crate::{FileErrorExt, command};

/// The limits of a guest's user namespace for each of its users: files of `/proc/sys/user` (namespaces(7)).
pub(super) const USER_LIMITS: [(&str, u32); 12] = [
    ("max_inotify_instances", 1024),
    ("max_inotify_watches", 1 << 19),
    ("max_fanotify_groups", 128),
    ("max_fanotify_marks", 1 << 16),
    ("max_user_namespaces", 1024),
    ("max_pid_namespaces", 1024),
    ("max_net_namespaces", 1024),
    ("max_mnt_namespaces", 1024),
    ("max_uts_namespaces", 1024),
    ("max_ipc_namespaces", 1024),
    ("max_cgroup_namespaces", 1024),
    ("max_time_namespaces", 1024),
];

/// The pseudo-terminals of a guest's `/dev/pts`.
pub(super) const TERMINALS: u32 = 512;

/// Limits the user namespace of a guest whose first process waits at the door. `mounts` is a mount namespace in which
/// `/proc/sys` can be written; `None` for the daemon's own.
///
/// `/proc/sys/user` shows the namespace of the process that opens it, so the shim enters the guest's. No program of the guest
/// runs.
pub(super) async fn limit_users(
    guest: &GuestName,
    leader: u32,
    cgroup: &Path,
    mounts: Option<&Path>,
    shim: &Path,
    limits: &[(&'static str, u32)],
) -> Result<(), UnitError> {
    let process = Process::in_cgroup(leader, cgroup).on("look into", cgroup)?;
    let namespace = format!("/proc/{leader}/ns/user");
    let namespace = File::open(&namespace).on("open", namespace)?;
    // Still the same process, so the namespace is the guest's.
    let is_alive = process.map(|process| process.is_alive()).transpose();
    if is_alive.on("check the first process of", guest.as_str())? != Some(true) {
        return Err(UnitError::NotAtDoor {
            guest: guest.clone(),
        });
    }
    let mut arguments: Vec<OsString> = vec!["limit-users".into()];
    if let Some(mounts) = mounts {
        arguments.extend(["--mounts".into(), mounts.into()]);
    }
    let (own_pid, file) = (std::process::id(), namespace.as_raw_fd());
    let user = format!("/proc/{own_pid}/fd/{file}");
    arguments.extend(["--user".into(), user.into(), "--".into()]);
    for (file, limit) in limits {
        arguments.extend([file.into(), limit.to_string().into()]);
    }
    command::run(shim, arguments, b"").await?;
    Ok(())
}

/// Limits the pseudo-terminals of a guest whose first process waits at the door. The guest's root can lift the limit: it
/// protects the host's terminals from faulty programs, not from an attacker.
pub(super) fn limit_terminals(leader: u32) -> io::Result<()> {
    let mounts = fs::read_to_string(format!("/proc/{leader}/mountinfo"))?;
    let Some(options) = terminal_options(&mounts) else {
        return Ok(());
    };
    let flags = FsPickFlags::FSPICK_CLOEXEC;
    let terminals = fspick(CWD, format!("/proc/{leader}/root/dev/pts"), flags)?;
    // Options that are not repeated would be reset to their defaults.
    for (name, value) in options {
        fsconfig_set_string(&terminals, name, value)?;
    }
    fsconfig_set_string(&terminals, "max", TERMINALS.to_string())?;
    Ok(fsconfig_reconfigure(&terminals)?)
}

/// Returns the options of a mounted `/dev/pts`, from a `mountinfo` (proc_pid_mountinfo(5)).
fn terminal_options(mounts: &str) -> Option<Vec<(&str, &str)>> {
    let of_terminals = |line: &str| line.split(' ').nth(4) == Some("/dev/pts");
    let line = mounts.lines().rfind(|line| of_terminals(line))?;
    let (_, filesystem) = line.split_once(" - ")?;
    let mut fields = filesystem.split(' ');
    if fields.next() != Some("devpts") {
        return None;
    }
    let options = fields.nth(1)?.split(',');
    Some(
        options
            .filter_map(|option| option.split_once('='))
            .filter(|(name, _)| *name != "max")
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_options_are_those_of_devpts() {
        let proc = "30 20 0:5 / /proc rw,nosuid - proc proc rw";
        let pts = "31 20 0:6 / /dev/pts rw,nosuid shared:3 - devpts devpts rw,gid=100005,mode=620,ptmxmode=666,max=9";
        assert_eq!(
            terminal_options(&format!("{proc}\n{pts}\n")),
            Some(vec![
                ("gid", "100005"),
                ("mode", "620"),
                ("ptmxmode", "666")
            ])
        );
        assert_eq!(terminal_options(proc), None);
        let tmpfs = "31 20 0:6 / /dev/pts rw - tmpfs tmpfs rw,size=4k";
        assert_eq!(terminal_options(tmpfs), None);
    }
}
