//! Cgroups of directly supervised guests, on hosts with version 2, version 1 or both.
//!
//! ```text
//! <hierarchy>/<parent>/<machine>/shim         the shim that supervises; only where guests are tracked
//! <hierarchy>/<parent>/<machine>/guest        nspawn and all processes of the guest, with the limits
//! <hierarchy>/<parent>/<machine>/guest/exec/* commands run in the guest from outside, one cgroup each
//! ```
//!
//! One hierarchy tells which processes are a guest's (version 2 where there is one, because it can kill a
//! cgroup at once); the others only limit. In version 2 processes live in leaves only, and nspawn makes
//! leaves of its own below `guest`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use innkeeper_model::Limits;
use rustix::process::Signal;

use super::error::UnitError;
use super::process::Process;
use crate::identity::Identity;
use crate::{FileError, FileErrorExt};

/// The file that lists a cgroup's processes and takes new ones.
const PROCS: &str = "cgroup.procs";

/// The controllers that limit guests, as both versions call them.
const LIMITING: [&str; 3] = ["memory", "cpu", "pids"];

/// Hierarchies of version 1 without a limit of ours that guests must be in all the same: nspawn works on
/// systemd's, and would otherwise put its cgroups into whichever one we are in.
const OTHERS: [&str; 2] = ["name=systemd", "freezer"];

/// How far down and how many cgroups a guest can make of its own. Each costs kernel memory, and the path of each must be
/// one that we can walk: names have at most 255 bytes, and paths 4096.
const GUEST_CGROUPS: [(&str, &str); 2] = [
    ("cgroup.max.depth", "16"),
    ("cgroup.max.descendants", "4096"),
];

/// The period of processor quotas, in microseconds: the kernel's default.
const CPU_PERIOD: u64 = 100_000;

/// How long an empty cgroup may stay busy.
const RMDIR_PATIENCE: u32 = 200;

/// The pause between two looks at something that the kernel does not announce.
pub(super) const PAUSE: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    mount: PathBuf,
    version: Version,
    /// Version 1: what is mounted there.
    controllers: Vec<String>,
}

/// All hierarchies that matter to guests. The first one tracks.
#[derive(Clone, Debug)]
pub(crate) struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    parent: String,
}

impl Cgroups {
    /// What this host has mounted.
    pub(crate) fn detect(parent: &str) -> Result<Self, UnitError> {
        let path = "/proc/self/mounts";
        Self::from_mounts(&fs::read_to_string(path).on("read", path)?, parent)
            .ok_or(UnitError::NoCgroups)
    }

    fn from_mounts(mounts: &str, parent: &str) -> Option<Self> {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for line in mounts.lines() {
            let mut words = line.split(' ').skip(1);
            let (Some(mount), Some(kind), Some(options)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let options: Vec<_> = options.split(',').collect();
            if !options.contains(&"rw") {
                continue;
            }
            let (version, controllers) = match kind {
                "cgroup2" => (Version::Two, Vec::new()),
                "cgroup" => {
                    let wanted =
                        |option: &&&str| LIMITING.contains(option) || OTHERS.contains(option);
                    let controllers = options
                        .iter()
                        .filter(wanted)
                        .map(|&option| option.to_owned());
                    (Version::One, controllers.collect::<Vec<_>>())
                }
                _ => continue,
            };
            let is_known = hierarchies
                .iter()
                .any(|known| known.version == version && known.controllers == controllers);
            if !is_known && (version == Version::Two || !controllers.is_empty()) {
                hierarchies.push(Hierarchy {
                    mount: mount.into(),
                    version,
                    controllers,
                });
            }
        }
        hierarchies.sort_by_key(Hierarchy::fitness);
        (!hierarchies.is_empty()).then(|| Self {
            hierarchies,
            parent: parent.to_owned(),
        })
    }

    /// The same, as if there were no version 2.
    #[cfg(test)]
    pub(super) fn without_version_two(mut self) -> Self {
        self.hierarchies
            .retain(|hierarchy| hierarchy.version == Version::One);
        self
    }

    /// Which limits have no effect on this host.
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

    /// The names of all machines that have a cgroup.
    pub(super) fn machines(&self) -> Result<Vec<(String, PathBuf)>, FileError> {
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

    /// Where systemd's own tree of cgroups is mounted, by which it tells the processes of units apart.
    pub(super) fn systemd(&self) -> Option<PathBuf> {
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

    /// Where the tree of cgroups is mounted that limits memory.
    pub(super) fn memory(&self) -> Option<PathBuf> {
        let limits_memory = |hierarchy: &&Hierarchy| hierarchy.limits_memory();
        let hierarchy = self.hierarchies.iter().rfind(limits_memory)?;
        Some(hierarchy.mount.clone())
    }

    /// The cgroups of one machine, whether or not they are there.
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

impl Hierarchy {
    /// The best one to track guests in comes first.
    fn fitness(&self) -> usize {
        match (
            self.version,
            self.controllers.iter().any(|name| name == "pids"),
        ) {
            (Version::Two, _) => 0,
            (Version::One, true) => 1,
            (Version::One, false) => 2,
        }
    }

    /// Whether memory is limited here, if it is anywhere. The controller is in one hierarchy only: one of version 1 that
    /// has it comes after that of version 2.
    fn limits_memory(&self) -> bool {
        self.version == Version::Two || self.controllers.iter().any(|name| name == "memory")
    }

    fn offers(&self, controller: &str, parent: &str) -> bool {
        match self.version {
            Version::One => self.controllers.iter().any(|name| name == controller),
            Version::Two => {
                // Before the first guest, only the root can be asked.
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

    /// What makes `limits` hold in a cgroup: files and their content, in the order of writing.
    fn limits(&self, limits: &Limits, parent: &str) -> Vec<(&'static str, String)> {
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

/// Limits what a guest can make of cgroups of its own, in a cgroup of version 2.
pub(super) fn confine(cgroup: &Path) -> Result<(), FileError> {
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

/// Whether a limit's file is missing on some kernels that have its controller: those without swap accounting.
fn is_optional(file: &str) -> bool {
    matches!(file, "memory.swap.max" | "memory.memsw.limit_in_bytes")
}

/// The cgroups of one machine, in every hierarchy.
#[derive(Clone, Debug)]
pub(crate) struct MachineCgroups {
    /// Never empty; the first one tracks.
    all: Vec<(Hierarchy, PathBuf)>,
}

impl MachineCgroups {
    /// Where the guest's processes are: nspawn and everything below it.
    pub(crate) fn guest(&self) -> PathBuf {
        self.tracking().join("guest")
    }

    /// Where the guest's memory is limited.
    pub(super) fn memory(&self) -> PathBuf {
        let limits_memory = |(hierarchy, _): &&(Hierarchy, PathBuf)| hierarchy.limits_memory();
        let found = self.all.iter().rfind(limits_memory);
        found.map_or_else(PathBuf::new, |(_, dir)| dir.join("guest"))
    }

    /// What the shim has to enter.
    pub(super) fn shim(&self) -> PathBuf {
        self.tracking().join("shim")
    }

    /// All processes of the machine: the guest's and the shim.
    pub(super) fn tracking(&self) -> PathBuf {
        self.all
            .first()
            .map(|(_, dir)| dir.clone())
            .unwrap_or_default()
    }

    /// What nspawn has to enter.
    pub(crate) fn guests(&self) -> Vec<PathBuf> {
        self.all.iter().map(|(_, dir)| dir.join("guest")).collect()
    }

    /// The cgroup of nspawn in the hierarchy of version 2, if there is one.
    pub(crate) fn unified(&self) -> Option<PathBuf> {
        let (hierarchy, dir) = self.all.first()?;
        (hierarchy.version == Version::Two).then(|| dir.join("guest"))
    }

    /// Where the cgroups of commands in the guest are made. `guest` itself is closed where nspawn has made
    /// leaves below it.
    pub(super) fn exec(&self) -> Vec<PathBuf> {
        self.all
            .iter()
            .map(|(_, dir)| dir.join("guest/exec"))
            .collect()
    }

    /// Makes the cgroups, with the limits, and marks them as a daemon's if that is given.
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
                    pass_on(dir);
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

    /// Whether any of it is there.
    pub(super) fn exists(&self) -> bool {
        self.all.iter().any(|(_, dir)| dir.exists())
    }

    /// Removes all of it, in every hierarchy; no process may be left.
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

/// Makes a cgroup unless it is there.
pub(super) fn make(dir: &Path) -> Result<(), FileError> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error).on("create", dir),
        _ => Ok(()),
    }
}

/// Lets the cgroups below have limits. What cannot be passed on has no effect, and `missing` says so. The kernel takes its
/// time for each attempt, so what is not there or done already is not tried.
fn pass_on(dir: &Path) {
    let listed = |file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default();
    let (offered, passed) = (
        listed("cgroup.controllers"),
        listed("cgroup.subtree_control"),
    );
    let has = |list: &str, controller| list.split_ascii_whitespace().any(|name| name == controller);
    for controller in LIMITING {
        if !has(&offered, controller) || has(&passed, controller) {
            continue;
        }
        let written = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
        if let Err(error) = written {
            tracing::trace!(cgroup = %dir.display(), controller, %error, "controller is not passed on");
        }
    }
}

/// The processes in a cgroup and below it; none when it is not there.
pub(super) fn pids(cgroup: &Path) -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for dir in tree(cgroup)? {
        pids.extend(own_pids(&dir)?);
    }
    Ok(pids)
}

/// Whether a process is in a cgroup or below it.
pub(super) fn contains(cgroup: &Path, pid: u32) -> io::Result<bool> {
    Ok(pids(cgroup)?.contains(&pid))
}

fn own_pids(dir: &Path) -> io::Result<Vec<u32>> {
    let text = match fs::read_to_string(dir.join(PROCS)) {
        // A cgroup that is removed while we look has no processes; a threaded one below a guest's service
        // lists them in its parent.
        Err(error) if is_gone(&error) || error.kind() == io::ErrorKind::Unsupported => {
            return Ok(Vec::new());
        }
        result => result?,
    };
    // 0 is a process that our pid namespace does not have.
    Ok(text
        .lines()
        .filter_map(|line| line.parse().ok())
        .filter(|pid| *pid != 0)
        .collect())
}

/// How many processes in a cgroup and below it the kernel has killed because a limit of memory was reached; 0 when that
/// cannot be read. Version 2 counts what happened below, also in cgroups that are gone; version 1 does not.
pub(super) fn oom_kills(cgroup: &Path) -> u64 {
    if let Some(kills) = oom_kills_in(&cgroup.join("memory.events")) {
        return kills;
    }
    let dirs = tree(cgroup).unwrap_or_default();
    let kills = dirs
        .iter()
        .filter_map(|dir| oom_kills_in(&dir.join("memory.oom_control")));
    kills.fold(0, u64::saturating_add)
}

/// The line `oom_kill <number>` of a file.
fn oom_kills_in(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count?.trim().parse().ok()
}

/// A cgroup and all below it, each before what it contains. A guest decides how deep they go, so there is
/// no recursion.
fn tree(cgroup: &Path) -> io::Result<Vec<PathBuf>> {
    if !cgroup.exists() {
        return Ok(Vec::new());
    }
    let mut dirs = vec![cgroup.to_owned()];
    let mut next = 0;
    while let Some(dir) = dirs.get(next) {
        let below = children(dir)?;
        dirs.extend(below);
        next += 1;
    }
    Ok(dirs)
}

/// The cgroups directly below a cgroup; none when it is not there.
pub(super) fn children(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut dirs = Vec::new();
    for entry in entries {
        match entry {
            Err(error) if is_gone(&error) => return Ok(Vec::new()),
            entry => {
                let entry = entry?;
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    dirs.push(entry.path());
                }
            }
        }
    }
    Ok(dirs)
}

/// Reading a cgroup that is being removed fails with ENODEV.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

/// Sends SIGKILL to every process in a cgroup and below it. What was killed may need a moment to end.
pub(super) fn kill(cgroup: &Path) -> Result<(), FileError> {
    // Version 2 since Linux 5.14: all at once, so that nothing can be born meanwhile.
    if fs::write(cgroup.join("cgroup.kill"), "1").is_ok() {
        return Ok(());
    }
    for pid in pids(cgroup).on("list", cgroup)? {
        if let Some(process) = Process::in_cgroup(pid, cgroup).on("look into", cgroup)? {
            process
                .signal(Signal::KILL)
                .on("kill the processes of", cgroup)?;
        }
    }
    Ok(())
}

/// Returns when no process is left in a cgroup and below it.
pub(crate) async fn emptied(cgroup: &Path) -> Result<(), FileError> {
    loop {
        let pids = pids(cgroup).on("list", cgroup)?;
        // The one that came first mostly ends last.
        let Some(pid) = pids.into_iter().min() else {
            return Ok(());
        };
        if let Some(process) = Process::in_cgroup(pid, cgroup).on("look into", cgroup)? {
            process.ended().await.on("watch the processes of", cgroup)?;
        }
        // Between its end and its being reaped, a process may still be listed.
        if contains(cgroup, pid).on("list", cgroup)? {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Removes a cgroup and all below it.
pub(super) async fn remove(cgroup: &Path) -> Result<(), FileError> {
    for dir in tree(cgroup).on("list", cgroup)?.into_iter().rev() {
        let mut patience = RMDIR_PATIENCE;
        loop {
            match fs::remove_dir(&dir) {
                // Without processes, it is busy only until the kernel has put them away.
                Err(error)
                    if error.kind() == io::ErrorKind::ResourceBusy
                        && patience > 0
                        && pids(&dir).on("list", &dir)?.is_empty() =>
                {
                    patience -= 1;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) if is_gone(&error) => break,
                result => {
                    result.on("remove", &dir)?;
                    break;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use innkeeper_model::{Cpus, MemorySize};

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

    fn limits() -> Limits {
        Limits {
            memory: MemorySize::from_bytes(64 << 20),
            cpus: Cpus::from_percent(150),
            tasks: 100,
        }
    }

    #[test]
    fn version_two_tracks_where_there_is_one() {
        let guests = detect(HYBRID).machine("web").guests();
        let expected = ["unified", "cpu,cpuacct", "memory", "systemd"]
            .map(|mount| PathBuf::from(format!("/sys/fs/cgroup/{mount}/innkeeper/web/guest")));
        assert_eq!(guests, expected);
    }

    #[test]
    fn without_version_two_the_one_that_counts_processes_tracks() {
        let mounts = "c /c/memory cgroup rw,memory 0 0\nc /c/pids cgroup rw,pids 0 0\n";
        assert_eq!(
            detect(mounts).machine("web").tracking(),
            Path::new("/c/pids/innkeeper/web")
        );
    }

    #[test]
    fn what_cannot_be_written_does_not_count() {
        assert!(
            Cgroups::from_mounts("cgroup2 /sys/fs/cgroup cgroup2 ro,relatime 0 0\n", "x").is_none()
        );
        assert!(Cgroups::from_mounts("proc /proc proc rw 0 0\n", "x").is_none());
        assert!(matches!(
            UnitError::NoCgroups.code(),
            Code::KernelFeatureMissing
        ));
    }

    use innkeeper_model::{Code, Explain};

    #[test]
    fn limits_are_written_as_each_version_wants_them() {
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
        fs::write(root.path().join("cgroup.controllers"), "pids\n").expect("written");
        let cgroups = Cgroups {
            hierarchies: vec![two],
            parent: "innkeeper".to_owned(),
        };
        assert_eq!(cgroups.missing(), ["memory", "cpu"]);
    }
}
