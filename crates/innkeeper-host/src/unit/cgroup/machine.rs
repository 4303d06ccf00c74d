//! The cgroups of machines, in all hierarchies.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use innkeeper_model::Limits;

use super::super::error::UnitError;
use super::hierarchy::{ACCOUNTING, Hierarchy, LIMITING, Version, is_optional};
use super::listing::children;
use super::processes::{make, remove};
use crate::identity::Identity;
use crate::{FileError, FileErrorExt};

/// All hierarchies that guests are in. The first one tracks.
#[derive(Clone, Debug)]
pub(crate) struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    parent: String,
}

impl Cgroups {
    /// Reads the mounted hierarchies of this host.
    pub(crate) fn detect(parent: &str) -> Result<Self, UnitError> {
        let path = "/proc/self/mounts";
        Self::from_mounts(&fs::read_to_string(path).on("read", path)?, parent)
            .ok_or(UnitError::NoCgroups)
    }

    fn from_mounts(mounts: &str, parent: &str) -> Option<Self> {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for hierarchy in mounts.lines().filter_map(Hierarchy::from_mount) {
            let is_known = hierarchies.iter().any(|known| {
                known.version == hierarchy.version && known.controllers == hierarchy.controllers
            });
            if !is_known {
                hierarchies.push(hierarchy);
            }
        }
        hierarchies.sort_by_key(Hierarchy::fitness);
        if hierarchies
            .first()
            .is_some_and(|first| first.version == Version::Two)
        {
            // Version 2 counts processor time too.
            hierarchies.retain(|hierarchy| hierarchy.controllers != [ACCOUNTING]);
        }
        (!hierarchies.is_empty()).then(|| Self {
            hierarchies,
            parent: parent.to_owned(),
        })
    }

    /// The same without version 2.
    #[cfg(test)]
    pub(in super::super) fn without_version_two(mut self) -> Self {
        self.hierarchies
            .retain(|hierarchy| hierarchy.version == Version::One);
        self
    }

    /// Returns the controllers whose limits have no effect on this host.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        LIMITING
            .into_iter()
            .filter(|controller| {
                !self
                    .hierarchies
                    .iter()
                    .any(|hierarchy| hierarchy.offers(controller, &self.parent))
            })
            .collect()
    }

    /// Returns the names of all machines that have a cgroup, and the cgroups.
    pub(in super::super) fn machines(&self) -> Result<Vec<(String, PathBuf)>, FileError> {
        let mut found = Vec::new();
        for hierarchy in &self.hierarchies {
            let parent = hierarchy.mount.join(&self.parent);
            for dir in children(&parent).on("list", &parent)? {
                if let Some(name) = dir.file_name().and_then(|name| name.to_str()) {
                    found.push((name.to_owned(), dir.clone()));
                }
            }
        }
        Ok(found)
    }

    /// Returns the mount point of systemd's own hierarchy, in which it tracks the processes of units.
    pub(in super::super) fn systemd(&self) -> Option<PathBuf> {
        let is_systemds = |hierarchy: &&Hierarchy| {
            hierarchy.version == Version::Two
                || hierarchy
                    .controllers
                    .iter()
                    .any(|name| name == "name=systemd")
        };
        self.hierarchies
            .iter()
            .find(is_systemds)
            .map(|hierarchy| hierarchy.mount.clone())
    }

    /// Returns the mount point of the hierarchy that limits memory.
    pub(in super::super) fn memory(&self) -> Option<PathBuf> {
        let limits_memory = |hierarchy: &&Hierarchy| hierarchy.limits_memory();
        let hierarchy = self.hierarchies.iter().rfind(limits_memory)?;
        Some(hierarchy.mount.clone())
    }

    /// Returns the cgroups of one machine, which may not exist.
    pub(crate) fn machine(&self, machine: &str) -> MachineCgroups {
        MachineCgroups {
            all: self
                .hierarchies
                .iter()
                .map(|hierarchy| {
                    (
                        hierarchy.clone(),
                        hierarchy.mount.join(&self.parent).join(machine),
                    )
                })
                .collect(),
        }
    }
}

/// The cgroups of one machine, in every hierarchy.
#[derive(Clone, Debug)]
pub(crate) struct MachineCgroups {
    /// Never empty; the first one tracks.
    all: Vec<(Hierarchy, PathBuf)>,
}

impl MachineCgroups {
    /// The cgroup of the guest's processes: nspawn and everything below it.
    pub(crate) fn guest(&self) -> PathBuf {
        self.tracking().join("guest")
    }

    /// The cgroup that limits the guest's memory.
    pub(in super::super) fn memory(&self) -> PathBuf {
        let limits_memory = |(hierarchy, _): &&(Hierarchy, PathBuf)| hierarchy.limits_memory();
        let found = self.all.iter().rfind(limits_memory);
        found.map_or_else(PathBuf::new, |(_, dir)| dir.join("guest"))
    }

    /// The cgroup that counts the guest's processor time.
    pub(in super::super) fn cpu(&self) -> PathBuf {
        let counts = |(hierarchy, _): &&(Hierarchy, PathBuf)| hierarchy.counts_cpu_time();
        let found = self.all.iter().find(counts);
        found.map_or_else(PathBuf::new, |(_, dir)| dir.join("guest"))
    }

    /// The cgroups that may be able to suspend the guest's processes, best first.
    pub(in super::super) fn freezer(&self) -> Vec<PathBuf> {
        let can_freeze = |(hierarchy, _): &&(Hierarchy, PathBuf)| hierarchy.can_freeze();
        let found = self.all.iter().filter(can_freeze);
        found.map(|(_, dir)| dir.join("guest")).collect()
    }

    /// The cgroup that the shim enters.
    pub(in super::super) fn shim(&self) -> PathBuf {
        self.tracking().join("shim")
    }

    /// All processes of the machine: the guest's and the shim.
    pub(in super::super) fn tracking(&self) -> PathBuf {
        self.all
            .first()
            .map(|(_, dir)| dir.clone())
            .unwrap_or_default()
    }

    /// The cgroups that nspawn enters.
    pub(crate) fn guests(&self) -> Vec<PathBuf> {
        self.all.iter().map(|(_, dir)| dir.join("guest")).collect()
    }

    /// The cgroup of nspawn in the hierarchy of version 2; `None` without version 2.
    pub(crate) fn unified(&self) -> Option<PathBuf> {
        let (hierarchy, dir) = self.all.first()?;
        (hierarchy.version == Version::Two).then(|| dir.join("guest"))
    }

    /// The parents of the cgroups of commands in the guest. `guest` itself takes no processes once nspawn has made leaves
    /// below it.
    pub(in super::super) fn exec(&self) -> Vec<PathBuf> {
        self.all
            .iter()
            .map(|(_, dir)| dir.join("guest/exec"))
            .collect()
    }

    /// Creates the cgroups with the limits, and marks them with `identity` if it is given.
    pub(crate) fn ensure(
        &self,
        limits: &Limits,
        identity: Option<&Identity>,
    ) -> Result<(), FileError> {
        for (hierarchy, dir) in &self.all {
            let parent = dir.parent().unwrap_or(dir);
            make(parent)?;
            make(dir)?;
            if let Some(identity) = identity {
                identity.mark(dir).on("mark", dir)?;
            }
            if hierarchy.version == Version::Two {
                for dir in [hierarchy.mount.as_path(), parent, dir] {
                    enable_controllers(dir);
                }
            }
            let guest = dir.join("guest");
            make(&guest)?;
            let parent = parent
                .strip_prefix(&hierarchy.mount)
                .unwrap_or(parent)
                .to_string_lossy();
            for (file, content) in hierarchy.limits(limits, &parent) {
                let path = guest.join(file);
                match fs::write(&path, content) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound && is_optional(file) => {}
                    result => result.on("write", &path)?,
                }
            }
        }
        make(&self.shim())
    }

    /// Reports whether any of the cgroups exists.
    pub(in super::super) fn exists(&self) -> bool {
        self.all.iter().any(|(_, dir)| dir.exists())
    }

    /// Removes the cgroups in every hierarchy. They must have no process.
    pub(crate) async fn remove(&self) -> Vec<UnitError> {
        let mut errors = Vec::new();
        for (_, dir) in &self.all {
            if let Err(error) = remove(dir).await {
                errors.push(error.into());
            }
        }
        errors
    }
}

/// Enables the limiting controllers for the cgroups below. A controller that cannot be enabled has no effect, and
/// [`Cgroups::missing`] reports it. Each attempt is slow in the kernel, so missing and enabled controllers are skipped.
fn enable_controllers(dir: &Path) {
    let listed = |file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default();
    let (offered, enabled) = (
        listed("cgroup.controllers"),
        listed("cgroup.subtree_control"),
    );
    let has = |list: &str, controller| list.split_ascii_whitespace().any(|name| name == controller);
    for controller in LIMITING {
        if !has(&offered, controller) || has(&enabled, controller) {
            continue;
        }
        let written = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
        if let Err(error) = written {
            tracing::trace!(cgroup = %dir.display(), controller, %error, "controller is not enabled");
        }
    }
}

#[cfg(test)]
mod tests {
    use innkeeper_model::{Code, Explain};

    use super::*;

    const HYBRID: &str = "\
proc /proc proc rw 0 0
tmpfs /sys/fs/cgroup tmpfs rw,mode=755 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup /sys/fs/cgroup/blkio cgroup rw,relatime,blkio 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,xattr,name=systemd 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
cgroup2 /another/place cgroup2 rw,relatime 0 0
";

    fn detect(mounts: &str) -> Cgroups {
        Cgroups::from_mounts(mounts, "innkeeper").expect("hierarchies")
    }

    #[test]
    fn version_two_tracks_if_it_is_mounted() {
        let guests = detect(HYBRID).machine("web").guests();
        let expected = ["unified", "cpu,cpuacct", "memory", "systemd"]
            .map(|mount| PathBuf::from(format!("/sys/fs/cgroup/{mount}/innkeeper/web/guest")));
        assert_eq!(guests, expected);
    }

    #[test]
    fn pids_hierarchy_tracks_without_version_two() {
        let mounts = "c /c/memory cgroup rw,memory 0 0\nc /c/pids cgroup rw,pids 0 0\n";
        assert_eq!(
            detect(mounts).machine("web").tracking(),
            Path::new("/c/pids/innkeeper/web")
        );
    }

    #[test]
    fn read_only_hierarchies_are_ignored() {
        assert!(
            Cgroups::from_mounts("cgroup2 /sys/fs/cgroup cgroup2 ro,relatime 0 0\n", "x").is_none()
        );
        assert!(Cgroups::from_mounts("proc /proc proc rw 0 0\n", "x").is_none());
        assert!(matches!(
            UnitError::NoCgroups.code(),
            Code::KernelFeatureMissing
        ));
    }

    #[test]
    fn missing_controllers_are_reported() {
        let root = tempfile::tempdir().expect("a directory");
        fs::write(root.path().join("cgroup.controllers"), "pids\n").expect("written");
        let cgroups = Cgroups {
            hierarchies: vec![Hierarchy {
                mount: root.path().to_owned(),
                version: Version::Two,
                controllers: Vec::new(),
            }],
            parent: "innkeeper".to_owned(),
        };
        assert_eq!(cgroups.missing(), ["memory", "cpu"]);
    }
}
