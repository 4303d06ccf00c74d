//! The namespaces of a guest, by descriptors.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;

use super::super::leader;
use super::user::User;

const USER: &str = "--user";

/// The capabilities that nsenter needs in a guest's user namespace: CAP_SETGID, CAP_SETUID, CAP_SYS_CHROOT, CAP_SYS_PTRACE and
/// CAP_SYS_ADMIN.
const TO_ENTER: u64 = 1 << 6 | 1 << 7 | 1 << 18 | 1 << 19 | 1 << 21;

/// The names of the namespaces in `/proc/<pid>/ns`, and nsenter's options.
const NAMESPACES: [(&str, &str); 7] = [
    ("user", USER),
    ("mnt", "--mount"),
    ("uts", "--uts"),
    ("ipc", "--ipc"),
    ("net", "--net"),
    ("cgroup", "--cgroup"),
    ("pid", "--pid"),
];

/// Descriptors of a process's namespaces and of its root directory.
pub(super) struct Namespaces {
    files: Vec<(&'static str, File)>,
    pub(super) root: Arc<File>,
    /// The host's id of the guest's root.
    pub(super) first_id: u32,
    /// The capabilities of a command, in the format of setpriv(1).
    pub(super) capabilities: String,
    /// The process, for programs that are in its user namespace.
    pid: u32,
}

impl Namespaces {
    pub(super) fn of(pid: u32, has_users: bool) -> io::Result<Self> {
        let mut files = Vec::new();
        for (name, option) in NAMESPACES {
            if name == "user" && !has_users {
                continue;
            }
            match File::open(format!("/proc/{pid}/ns/{name}")) {
                // A kernel without cgroup namespaces.
                Err(error) if error.kind() == io::ErrorKind::NotFound && name == "cgroup" => {}
                file => files.push((option, file?)),
            }
        }
        let root = Arc::new(File::open(format!("/proc/{pid}/root"))?);
        // "inside outside count" (user_namespaces(7)); nspawn writes one line.
        let map = std::fs::read_to_string(format!("/proc/{pid}/uid_map"))?;
        let first_id = map
            .split_ascii_whitespace()
            .nth(1)
            .and_then(|id| id.parse().ok());
        let first_id =
            first_id.ok_or_else(|| io::Error::other("the guest's user ids are not mapped"))?;
        let own = leader::bounding_set(pid).ok_or(io::ErrorKind::NotFound)?;
        let capabilities = only(if has_users { own | TO_ENTER } else { own });
        Ok(Self {
            files,
            root,
            first_id,
            capabilities,
            pid,
        })
    }

    /// Returns the arguments that enter the namespaces as this user with its groups, and drop all but
    /// [`Self::capabilities`].
    ///
    /// setpriv sets the groups, because nsenter cannot set supplementary ones and, with `--setgid`, removes them.
    ///
    /// Entering a user namespace gives all capabilities in it, and the mount namespace has only the guest's programs.
    /// So the user namespace comes first: in it, setpriv is still the host's, and so is the nsenter that enters the
    /// others. From then on they are found by process id. If that was reused, the kernel refuses to open the
    /// namespaces, because their process is outside of this user namespace.
    pub(super) fn arguments(&self, nsenter: &Path, setpriv: &Path, user: &User) -> Vec<OsString> {
        let held = |file: &File| format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let mut arguments: Vec<OsString> = Vec::new();
        let user_namespace = self.files.iter().find(|(option, _)| *option == USER);
        if let Some((option, file)) = user_namespace {
            arguments.push(nsenter.into());
            arguments.push(format!("{option}={}", held(file)).into());
            arguments.push("--".into());
        }
        arguments.push(setpriv.into());
        arguments.push(format!("--bounding-set={}", self.capabilities).into());
        arguments.push(format!("--regid={}", user.gid).into());
        arguments.push(groups_option(&user.groups).into());
        arguments.push("--".into());
        arguments.push(nsenter.into());
        // It opens all of these before it enters the first.
        for (option, file) in &self.files {
            if user_namespace.is_none() {
                arguments.push(format!("{option}={}", held(file)).into());
            } else if *option != USER {
                arguments.push((*option).into());
            }
        }
        if user_namespace.is_none() {
            arguments.push(format!("--root={}", held(&self.root)).into());
        } else {
            arguments.push(format!("--target={}", self.pid).into());
            arguments.push("--root".into());
        }
        arguments.push(format!("--setuid={}", user.uid).into());
        arguments.push("--".into());
        arguments
    }
}

/// Returns setpriv's option for supplementary groups.
fn groups_option(groups: &[u32]) -> String {
    if groups.is_empty() {
        return "--clear-groups".to_owned();
    }
    let groups: Vec<_> = groups.iter().map(u32::to_string).collect();
    format!("--groups={}", groups.join(","))
}

/// Formats a set of capabilities for setpriv(1).
fn only(set: u64) -> String {
    let kept = (0..u64::BITS).filter(|number| set >> number & 1 == 1);
    let names =
        std::iter::once("-all".to_owned()).chain(kept.map(|number| format!("+cap_{number}")));
    names.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounding_set_lists_its_capabilities() {
        assert_eq!(only(0), "-all");
        assert_eq!(only(0b1001), "-all,+cap_0,+cap_3");
    }
}
