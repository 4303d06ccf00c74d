//! Detection of cgroup hierarchies (cgroups(7)).

use std::path::Path;

use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};

use super::mounts::Mount;

/// Controllers that limit guests: memory, processor time, number of processes.
pub(super) const NEEDED: [&str; 3] = ["memory", "cpu", "pids"];

/// The cgroup version in use, with its writable controllers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CgroupVersion {
    /// A single hierarchy for all controllers.
    V2 {
        /// The controllers at its root.
        controllers: Vec<String>,
    },
    /// Separate hierarchies for one or a few controllers each.
    V1 {
        /// The controllers of all hierarchies.
        controllers: Vec<String>,
    },
}

impl CgroupVersion {
    /// Returns the usable controllers.
    #[must_use]
    pub fn controllers(&self) -> &[String] {
        match self {
            Self::V2 { controllers } | Self::V1 { controllers } => controllers,
        }
    }

    /// Returns the controllers that guests need and this host lacks.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let has = |name: &&str| {
            self.controllers()
                .iter()
                .any(|controller| controller == name)
        };
        NEEDED.into_iter().filter(|name| !has(name)).collect()
    }

    /// Detects the version. On a host with both, the one with more needed controllers counts, because each controller is in one
    /// of them only.
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
    // Options such as `rw` and `name=systemd` are not controllers.
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
