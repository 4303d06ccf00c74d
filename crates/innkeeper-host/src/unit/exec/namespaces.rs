//! The namespaces of a guest, held.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use super::super::leader;

/// The namespaces of a guest, as `/proc/<pid>/ns` and nsenter call them.
const NAMESPACES: [(&str, &str); 7] = [
    ("user", "--user"),
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
    /// Without a user namespace: the only capabilities that the guest may have, as setpriv(1) wants them.
    pub(super) capabilities: Option<String>,
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
        let capabilities = if has_users {
            None
        } else {
            Some(only(
                leader::bounding_set(pid).ok_or(io::ErrorKind::NotFound)?,
            ))
        };
        Ok(Self {
            files,
            root,
            first_id,
            capabilities,
        })
    }

    /// nsenter's options. It opens all of these before it enters the first.
    pub(super) fn words(&self) -> Vec<OsString> {
        let ours = |file: &File| format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let mut words: Vec<OsString> = self
            .files
            .iter()
            .map(|(option, file)| format!("{option}={}", ours(file)).into())
            .collect();
        words.push(format!("--root={}", ours(&self.root)).into());
        words
    }
}

/// The capabilities of a set and no others.
fn only(set: u64) -> String {
    let kept = (0..u64::BITS).filter(|number| set >> number & 1 == 1);
    let words =
        std::iter::once("-all".to_owned()).chain(kept.map(|number| format!("+cap_{number}")));
    words.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounding_set_names_what_is_in_it() {
        assert_eq!(only(0), "-all");
        assert_eq!(only(0b1001), "-all,+cap_0,+cap_3");
    }
}
