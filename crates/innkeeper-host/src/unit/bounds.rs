//! Bounds what a guest takes of the kernel's tables that all guests share with the host.
//!
//! The kernel charges what a process of a guest makes to its user in the guest's user namespace, and again to the
//! user who made that namespace: the host's root, for all guests (`kernel/ucount.c`). So the namespace gets limits of
//! its own, which count for each user of the guest. Only a process with CAP_SYS_RESOURCE over the namespace may
//! change them; guests and commands of `agent exec` lack it. docs/security.md ("Limits that guests share") lists what
//! this cannot bound.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use innkeeper_model::GuestName;
use rustix::fs::CWD;
use rustix::mount::{FsPickFlags, fsconfig_reconfigure, fsconfig_set_string, fspick};

use super::error::UnitError;
use super::process::{Process, find_program};
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
/// `/proc/sys` can be written; without, the daemon's own is one.
///
/// The files of `/proc/sys/user` are those of the namespace of whoever opens them, so a program enters it for that. It
/// is the host's: nothing of the guest runs.
pub(super) async fn limit_users(
    guest: &GuestName,
    leader: u32,
    cgroup: &Path,
    mounts: Option<&Path>,
    limits: &[(&'static str, u32)],
) -> Result<(), UnitError> {
    const SCRIPT: &str = r#"
cd /proc/sys/user || exit
while [ $# -gt 0 ]; do
    # Older kernels lack some.
    [ ! -e "$1" ] || echo "$2" > "$1" || exit
    shift 2
done
"#;
    let process = Process::in_cgroup(leader, cgroup).on("look into", cgroup)?;
    let namespace = format!("/proc/{leader}/ns/user");
    let namespace = File::open(&namespace).on("open", namespace)?;
    // Still the same process, so the namespace is the guest's.
    let is_alive = process.map(|process| process.is_alive()).transpose();
    if is_alive.on("look at", guest.as_str())? != Some(true) {
        return Err(UnitError::NotAtDoor {
            guest: guest.clone(),
        });
    }
    let mut words: Vec<_> = mounts
        .map(|mounts| format!("--mount={}", mounts.display()))
        .into_iter()
        .collect();
    let (ours, file) = (std::process::id(), namespace.as_raw_fd());
    words.push(format!("--user=/proc/{ours}/fd/{file}"));
    words.extend(["--", "/bin/sh", "-c", SCRIPT, "sh"].map(str::to_owned));
    for (file, limit) in limits {
        words.extend([(*file).to_owned(), limit.to_string()]);
    }
    command::run(find_program("nsenter".as_ref())?, words, b"").await?;
    Ok(())
}

/// Limits the pseudo-terminals of a guest whose first process waits at the door. The guest's root can take the limit
/// away: it keeps programs from using up the host's, not an attacker.
pub(super) fn limit_terminals(leader: u32) -> io::Result<()> {
    let mounts = fs::read_to_string(format!("/proc/{leader}/mountinfo"))?;
    let Some(options) = terminal_options(&mounts) else {
        return Ok(());
    };
    let flags = FsPickFlags::FSPICK_CLOEXEC;
    let terminals = fspick(CWD, format!("/proc/{leader}/root/dev/pts"), flags)?;
    // Options that are not repeated would have their defaults.
    for (name, value) in options {
        fsconfig_set_string(&terminals, name, value)?;
    }
    fsconfig_set_string(&terminals, "max", TERMINALS.to_string())?;
    Ok(fsconfig_reconfigure(&terminals)?)
}

/// The options of the terminals' file system, if it is mounted, from a `mountinfo` (proc_pid_mountinfo(5)).
fn terminal_options(mounts: &str) -> Option<Vec<(&str, &str)>> {
    let of_terminals = |line: &str| line.split(' ').nth(4) == Some("/dev/pts");
    let line = mounts.lines().rfind(|line| of_terminals(line))?;
    let (_, filesystem) = line.split_once(" - ")?;
    let mut words = filesystem.split(' ');
    if words.next() != Some("devpts") {
        return None;
    }
    let options = words.nth(1)?.split(',');
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
    fn only_the_options_of_the_terminals_are_repeated() {
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
