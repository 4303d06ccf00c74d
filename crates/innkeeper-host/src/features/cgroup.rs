//! Which cgroup hierarchies there are (cgroups(7)).

use std::path::Path;

use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};

use super::mounts::Mount;

/// What limits guests: for memory, processor time and number of processes.
pub(super) const NEEDED: [&str; 3] = ["memory", "cpu", "pids"];

/// How processes can be limited. Only what may be written is named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CgroupVersion {
    /// One hierarchy for all controllers.
    V2 {
        /// The controllers at its root.
        controllers: Vec<String>,
    },
    /// A hierarchy for each controller or few of them.
    V1 {
        /// All controllers.
        controllers: Vec<String>,
    },
}

impl CgroupVersion {
    /// The controllers that can be used.
    #[must_use]
    pub fn controllers(&self) -> &[String] {
        match self {
            Self::V2 { controllers } | Self::V1 { controllers } => controllers,
        }
    }

    /// Which of the limits of guests cannot be enforced.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let has = |name: &&str| {
            self.controllers()
                .iter()
                .any(|controller| controller == name)
        };
        NEEDED.into_iter().filter(|name| !has(name)).collect()
    }

    /// Finds out. A host may have both versions; then the one with the controllers counts, because a
    /// controller is in one of them only.
    pub(super) fn detect(root: &Path, mounts: &[Mount]) -> Self {
        let unified = version_2(root, mounts);
        let single = version_1(root, mounts);
        let count = |controllers: &[String]| {
            NEEDED
                .iter()
                .filter(|name| controllers.iter().any(|c| c == *name))
                .count()
        };
        if count(&single) > count(&unified) {
            Self::V1 {
                controllers: single,
            }
        } else {
            Self::V2 {
                controllers: unified,
            }
        }
    }
}

fn version_2(root: &Path, mounts: &[Mount]) -> Vec<String> {
    let read = |mount: &Mount| {
        let text = std::fs::read_to_string(at(root, &mount.point).join("cgroup.controllers"));
        Some(text.ok()?.split_whitespace().map(str::to_owned).collect())
    };
    writable(root, mounts, "cgroup2")
        .find_map(read)
        .unwrap_or_default()
}

fn version_1(root: &Path, mounts: &[Mount]) -> Vec<String> {
    // Beside its controllers, a hierarchy has options such as `rw` and `name=systemd`: they match none.
    let mut controllers: Vec<_> = writable(root, mounts, "cgroup")
        .flat_map(|mount| mount.options.clone())
        .collect();
    controllers.retain(|option| option != "rw" && !option.contains('='));
    controllers
}

fn writable<'a>(
    root: &'a Path,
    mounts: &'a [Mount],
    filesystem: &'static str,
) -> impl Iterator<Item = &'a Mount> {
    mounts.iter().filter(move |mount| {
        mount.filesystem == filesystem && access(at(root, &mount.point), Access::WRITE_OK).is_ok()
    })
}

fn at(root: &Path, absolute: &Path) -> std::path::PathBuf {
    root.join(absolute.strip_prefix("/").unwrap_or(absolute))
}
