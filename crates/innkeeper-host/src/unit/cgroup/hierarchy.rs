//! A mounted hierarchy of cgroups, and the limits in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use innkeeper_model::Limits;

use crate::{FileError, FileErrorExt};

/// The controllers that limit guests, as both versions call them.
pub(super) const LIMITING: [&str; 3] = ["memory", "cpu", "pids"];

/// Hierarchies of version 1 that guests must be in although they limit nothing: nspawn works on systemd's, and would
/// otherwise put its cgroups into the daemon's own. The others suspend guests and count.
const OTHERS: [&str; 3] = ["name=systemd", FREEZER, ACCOUNTING];

/// The controller of version 1 that suspends processes. Version 2 needs none.
const FREEZER: &str = "freezer";

/// The controller of version 1 that counts processor time. It is mostly mounted together with `cpu`.
pub(super) const ACCOUNTING: &str = "cpuacct";

/// The limits on depth and number of a guest's own cgroups. Each cgroup costs kernel memory, and its path must be short
/// enough to walk: names have at most 255 bytes, and paths 4096.
const GUEST_CGROUPS: [(&str, &str); 2] = [
    ("cgroup.max.depth", "16"),
    ("cgroup.max.descendants", "4096"),
];

/// The period of processor quotas, in microseconds: the kernel's default.
const CPU_PERIOD: u64 = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) mount: PathBuf,
    pub(super) version: Version,
    /// The controllers of a hierarchy of version 1.
    pub(super) controllers: Vec<String>,
}

impl Hierarchy {
    /// Parses a line of `/proc/self/mounts`; `None` for other mounts, and those that cannot be written.
    pub(super) fn from_mount(line: &str) -> Option<Self> {
        let mut fields = line.split(' ').skip(1);
        let (mount, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        let options: Vec<_> = options.split(',').collect();
        if !options.contains(&"rw") {
            return None;
        }
        let (version, controllers) = match kind {
            "cgroup2" => (Version::Two, Vec::new()),
            "cgroup" => {
                let relevant =
                    |option: &&&str| LIMITING.contains(option) || OTHERS.contains(option);
                let controllers = options
                    .iter()
                    .filter(relevant)
                    .map(|&option| option.to_owned());
                (Version::One, controllers.collect::<Vec<_>>())
            }
            _ => return None,
        };
        (version == Version::Two || !controllers.is_empty()).then(|| Self {
            mount: mount.into(),
            version,
            controllers,
        })
    }

    /// The sort key by suitability for tracking guests, best first.
    pub(super) fn fitness(&self) -> usize {
        match (
            self.version,
            self.controllers.iter().any(|name| name == "pids"),
        ) {
            (Version::Two, _) => 0,
            (Version::One, true) => 1,
            (Version::One, false) => 2,
        }
    }

    /// Reports whether the memory controller can be in this hierarchy. It is in one only: a hierarchy of version 1 that
    /// has it comes after that of version 2.
    pub(super) fn limits_memory(&self) -> bool {
        self.version == Version::Two || self.controllers.iter().any(|name| name == "memory")
    }

    /// Reports whether processor time is counted in this hierarchy.
    pub(super) fn counts_cpu_time(&self) -> bool {
        self.version == Version::Two || self.controllers.iter().any(|name| name == ACCOUNTING)
    }

    /// Reports whether the processes of a cgroup in this hierarchy can be suspended, as far as the kernel is new enough.
    pub(super) fn can_freeze(&self) -> bool {
        self.version == Version::Two || self.controllers.iter().any(|name| name == FREEZER)
    }

    /// Reports whether a controller can limit guests below `parent`.
    pub(super) fn offers(&self, controller: &str, parent: &str) -> bool {
        match self.version {
            Version::One => self.controllers.iter().any(|name| name == controller),
            Version::Two => {
                // Before the first guest, only the root exists.
                let file = |dir: PathBuf| fs::read_to_string(dir.join("cgroup.controllers"));
                file(self.mount.join(parent))
                    .or_else(|_| file(self.mount.clone()))
                    .is_ok_and(|controllers| {
                        controllers
                            .split_ascii_whitespace()
                            .any(|name| name == controller)
                    })
            }
        }
    }

    /// Returns the files that set `limits` in a cgroup and their content, in the order of writing.
    pub(super) fn limits(&self, limits: &Limits, parent: &str) -> Vec<(&'static str, String)> {
        let memory = limits.memory.bytes().to_string();
        let quota = u64::from(limits.cpus.percent()) * CPU_PERIOD / 100;
        let tasks = limits.tasks.to_string();
        let mut files = Vec::new();
        let (one, two) = (self.version == Version::One, self.version == Version::Two);
        if self.offers("memory", parent) && two {
            files.push(("memory.max", memory.clone()));
            files.push(("memory.swap.max", "0".to_owned()));
        }
        if self.offers("memory", parent) && one {
            files.push(("memory.limit_in_bytes", memory.clone()));
            // Memory and swap together, so this is no swap at all.
            files.push(("memory.memsw.limit_in_bytes", memory));
        }
        if self.offers("cpu", parent) && two {
            files.push(("cpu.max", format!("{quota} {CPU_PERIOD}")));
        }
        if self.offers("cpu", parent) && one {
            files.push(("cpu.cfs_period_us", CPU_PERIOD.to_string()));
            files.push(("cpu.cfs_quota_us", quota.to_string()));
        }
        if self.offers("pids", parent) {
            files.push(("pids.max", tasks));
        }
        if two {
            files.extend(GUEST_CGROUPS.map(|(file, content)| (file, content.to_owned())));
        }
        files
    }
}

/// Limits the cgroups that a guest can create in a cgroup of version 2.
pub(in super::super) fn confine(cgroup: &Path) -> Result<(), FileError> {
    for (file, content) in GUEST_CGROUPS {
        let path = cgroup.join(file);
        match fs::write(&path, content) {
            // Version 1 has no such limit.
            Err(error) if error.kind() == io::ErrorKind::NotFound && cgroup.exists() => {}
            result => result.on("write", &path)?,
        }
    }
    Ok(())
}

/// Reports whether some kernels with the controller lack a limit's file: those without swap accounting.
pub(super) fn is_optional(file: &str) -> bool {
    matches!(file, "memory.swap.max" | "memory.memsw.limit_in_bytes")
}

#[cfg(test)]
mod tests {
    use innkeeper_model::{Cpus, MemorySize};

    use super::*;

    fn limits() -> Limits {
        Limits {
            memory: MemorySize::from_bytes(64 << 20),
            cpus: Cpus::from_percent(150),
            tasks: 100,
            user_ids: innkeeper_model::UserIdCount::default(),
            nesting: false,
        }
    }

    #[test]
    fn limits_match_each_cgroup_version() {
        let one = Hierarchy {
            mount: "/c".into(),
            version: Version::One,
            controllers: LIMITING.map(str::to_owned).to_vec(),
        };
        insta::assert_debug_snapshot!(one.limits(&limits(), "innkeeper"));
        // A version 2 as the kernel would show it.
        let root = tempfile::tempdir().expect("a directory");
        fs::write(
            root.path().join("cgroup.controllers"),
            "cpuset cpu io memory pids\n",
        )
        .expect("written");
        let two = Hierarchy {
            mount: root.path().to_owned(),
            version: Version::Two,
            controllers: Vec::new(),
        };
        insta::assert_debug_snapshot!(two.limits(&limits(), "innkeeper"));
    }
}
