//! What this kernel and this host can do, asked once at the start.

mod cgroup;
mod limits;
pub(crate) mod mounts;
mod probe;

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use innkeeper_facilities::{FacilityError, HostFeatures};
use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::{Code, Explain, MAX_SLOT, Slot, chain};
use serde::{Deserialize, Serialize};

use crate::{FileError, FileErrorExt};
pub use cgroup::CgroupVersion;
use mounts::Release;

/// How a guest's user ids relate to the host's, and who owns its files on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserIds {
    /// No user namespace: the guest's root is the host's root.
    Host,
    /// A user namespace and an idmapped mount: files belong to id 0 and up on disk.
    Mapped,
    /// A user namespace on a filesystem without idmapped mounts: files belong to the guest's range on disk.
    Shifted,
}

impl UserIds {
    /// The owner on disk of a file that belongs to `id` inside the guest.
    #[must_use]
    pub fn on_disk(self, slot: Slot, id: u32) -> u32 {
        match self {
            Self::Host | Self::Mapped => id,
            Self::Shifted => slot.first_user_id() + id,
        }
    }
}

/// Whether guests are to have user namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserIdsChoice {
    /// Where the kernel allows it.
    #[default]
    Auto,
    /// Always; a host that cannot is refused.
    On,
    /// Never: a guest's root is the host's root, held back by capabilities alone.
    Off,
}

/// Something that guests need is not there.
#[derive(Debug, thiserror::Error)]
pub enum FeatureError {
    /// The kernel was built without a kind of namespaces.
    #[error("the kernel has no {kind} namespaces")]
    NoNamespaces {
        /// Which kind, as in namespaces(7).
        kind: &'static str,
    },
    /// The configuration asks for user namespaces.
    #[error("guests cannot have user namespaces: {0}")]
    NoUserNamespaces(Lack),
    /// A file of the kernel's or the state directory cannot be read.
    #[error("cannot find out what this host can do")]
    Unreadable(#[from] FileError),
}

impl Explain for FeatureError {
    fn code(&self) -> Code {
        match self {
            Self::NoNamespaces { .. } | Self::NoUserNamespaces(_) => Code::KernelFeatureMissing,
            Self::Unreadable(error) => error.code_or(Code::KernelFeatureMissing),
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::NoNamespaces { .. } => Some(
                "Use a kernel with CONFIG_NAMESPACES, CONFIG_NET_NS and CONFIG_PID_NS; every distribution's has them.".to_owned(),
            ),
            Self::NoUserNamespaces(lack) => Some(format!(
                "{} Or set `guest.user_namespace = \"auto\"`, if guests may do without.",
                lack.remedy()
            )),
            Self::Unreadable(error) => error.remedy(),
        }
    }
}

/// Why guests cannot have user namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// The kernel was built without.
    #[error("the kernel has none")]
    Kernel,
    /// The administrator forbids them.
    #[error("user.max_user_namespaces is 0")]
    Forbidden,
    /// We are in a user namespace ourselves, and it is too small for the guests' ids.
    #[error("innkeeperd runs in a user namespace without the ids {first} to {last} that guests get", first = first_id(), last = last_id())]
    Ids,
}

impl Lack {
    fn remedy(self) -> String {
        match self {
            Self::Kernel => "Use a kernel with CONFIG_USER_NS.".to_owned(),
            Self::Forbidden => {
                "Allow them: `sysctl user.max_user_namespaces=2147483647`, and in sysctl.d to keep it."
                    .to_owned()
            }
            Self::Ids => {
                "Run innkeeperd on the host itself, or in a container that has all user ids."
                    .to_owned()
            }
        }
    }
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Features {
    /// How guests' user ids relate to the host's, after the configuration's wish and what is possible.
    pub user_ids: UserIds,
    /// Whether guests could have user namespaces.
    pub user_namespaces: bool,
    /// Whether the state directory's filesystem can be mounted with mapped ids.
    pub idmapped_mounts: bool,
    /// The type of the state directory's filesystem, such as `ext4`.
    pub filesystem: String,
    /// How guests can be limited.
    pub cgroup: CgroupVersion,
    /// Whether systemd is PID 1.
    pub systemd: bool,
    wanted: UserIdsChoice,
    lack: Option<Lack>,
}

impl Features {
    /// Looks at the host. `state_dir`, or the nearest directory above it that exists, is where guests'
    /// files will be.
    ///
    /// # Errors
    /// [`FeatureError`] when guests cannot run here at all, or not as the configuration demands.
    pub fn detect(state_dir: &Path, wanted: UserIdsChoice) -> Result<Self, FeatureError> {
        Self::detect_in(Path::new("/"), &existing(state_dir)?, wanted)
    }

    /// [`Self::detect`], with the kernel's files below `root`. `state_dir` has no symlinks.
    fn detect_in(
        root: &Path,
        state_dir: &Path,
        wanted: UserIdsChoice,
    ) -> Result<Self, FeatureError> {
        for (file, kind) in [("net", "network"), ("pid", "PID"), ("mnt", "mount")] {
            if !root.join("proc/self/ns").join(file).exists() {
                return Err(FeatureError::NoNamespaces { kind });
            }
        }
        let lack = lack_of_user_namespaces(root)?;
        if let (UserIdsChoice::On, Some(lack)) = (wanted, lack) {
            return Err(FeatureError::NoUserNamespaces(lack));
        }
        let mounts = mounts::parse(&read(root, "proc/self/mountinfo")?);
        let filesystem = mounts::holding(&mounts, state_dir)
            .map_or_else(|| "unknown".to_owned(), |mount| mount.filesystem.clone());
        let release = Release::parse(&read(root, "proc/sys/kernel/osrelease")?);
        let idmapped_mounts =
            release.is_some_and(|release| mounts::is_mappable(&filesystem, release));
        let user_ids = match (wanted, lack) {
            (UserIdsChoice::Off, _) | (_, Some(_)) => UserIds::Host,
            _ if idmapped_mounts => UserIds::Mapped,
            _ => UserIds::Shifted,
        };
        Ok(Self {
            user_ids,
            user_namespaces: lack.is_none(),
            idmapped_mounts,
            filesystem,
            cgroup: CgroupVersion::detect(root, &mounts),
            // As sd_booted(3) does it.
            systemd: root.join("run/systemd/system").is_dir(),
            wanted,
            lack,
        })
    }

    fn check_user_ids(&self) -> Check {
        let filesystem = &self.filesystem;
        let (verdict, finding, remedy) = match (self.user_ids, self.lack) {
            (UserIds::Mapped, _) => (
                Verdict::Ok,
                format!("guests have user namespaces, on idmapped mounts of {filesystem}"),
                None,
            ),
            (UserIds::Shifted, _) => (
                Verdict::Warning,
                format!(
                    "guests have user namespaces, but {filesystem} cannot be mounted with mapped ids here: the owner of each file of a guest is changed on disk"
                ),
                Some(
                    "Put the state directory on ext4, xfs or btrfs, on Linux 5.15 or newer."
                        .to_owned(),
                ),
            ),
            (UserIds::Host, Some(lack)) if self.wanted != UserIdsChoice::Off => (
                Verdict::Warning,
                format!("a guest's root is the host's root: {lack}"),
                Some(lack.remedy()),
            ),
            (UserIds::Host, _) => (
                Verdict::Warning,
                "a guest's root is the host's root, as configured".to_owned(),
                Some("Set `guest.user_namespace = \"auto\"`.".to_owned()),
            ),
        };
        Check {
            subject: "user namespaces".to_owned(),
            verdict,
            finding,
            remedy,
        }
    }

    fn check_cgroup(&self) -> Check {
        let missing = self.cgroup.missing();
        let version = match self.cgroup {
            CgroupVersion::V2 { .. } => "version 2",
            CgroupVersion::V1 { .. } => "version 1",
        };
        let (verdict, finding, remedy) = if missing.is_empty() {
            (
                Verdict::Ok,
                format!(
                    "guests are limited in memory, processor time and processes (cgroup {version})"
                ),
                None,
            )
        } else {
            (
                Verdict::Warning,
                format!("guests are not limited by {} (cgroup {version})", missing.join(", ")),
                Some("Mount the cgroup hierarchy with these controllers, writable for innkeeperd: `mount -t cgroup2 none /sys/fs/cgroup`.".to_owned()),
            )
        };
        Check {
            subject: "cgroup".to_owned(),
            verdict,
            finding,
            remedy,
        }
    }
}

#[async_trait]
impl HostFeatures for Features {
    fn user_namespaces(&self) -> bool {
        self.user_namespaces
    }

    /// Tries in a throwaway namespace what can be tried.
    async fn check(&self) -> Vec<Check> {
        let mut checks = vec![self.check_user_ids(), self.check_cgroup()];
        checks.extend(limits::check(Path::new("/")));
        match probe::attempt().await {
            Ok(attempts) => {
                checks.push(tried("veth", "a veth pair can be made", &attempts.veth));
                checks.push(tried("nf_tables", "the kernel takes our rules", &attempts.nftables));
            }
            Err(error) => checks.push(Check {
                subject: "network namespaces".to_owned(),
                verdict: Verdict::Broken,
                finding: format!("cannot make a network namespace: {error}"),
                remedy: Some("Run innkeeperd as root, or give it CAP_SYS_ADMIN; `sysctl user.max_net_namespaces` must not be 0.".to_owned()),
            }),
        }
        checks
    }
}

fn tried(subject: &str, success: &str, result: &Result<(), FacilityError>) -> Check {
    match result {
        Ok(()) => Check {
            subject: subject.to_owned(),
            verdict: Verdict::Ok,
            finding: success.to_owned(),
            remedy: None,
        },
        Err(error) => Check {
            subject: subject.to_owned(),
            verdict: Verdict::Broken,
            finding: chain(error),
            remedy: error.remedy(),
        },
    }
}

fn lack_of_user_namespaces(root: &Path) -> Result<Option<Lack>, FileError> {
    if !root.join("proc/self/ns/user").exists() {
        return Ok(Some(Lack::Kernel));
    }
    if read(root, "proc/sys/user/max_user_namespaces")?.trim() == "0" {
        return Ok(Some(Lack::Forbidden));
    }
    let has_ids = ["uid_map", "gid_map"]
        .map(|map| Ok(has_guests_ids(&read(root, &format!("proc/self/{map}"))?)));
    for has_ids in has_ids {
        if !has_ids? {
            return Ok(Some(Lack::Ids));
        }
    }
    Ok(None)
}

fn first_id() -> u32 {
    Slot::new(1).first_user_id()
}

fn last_id() -> u32 {
    Slot::new(MAX_SLOT).first_user_id() + (Slot::USER_IDS - 1)
}

/// Whether a map of ids (user_namespaces(7): first id inside, first id outside, how many) has all ids
/// that guests may get.
fn has_guests_ids(map: &str) -> bool {
    let covers = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), Some(_), Some(Ok(count))) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            return false;
        };
        first <= u64::from(first_id()) && first + count > u64::from(last_id())
    };
    map.lines().any(covers)
}

fn read(root: &Path, file: &str) -> Result<String, FileError> {
    let path = root.join(file);
    std::fs::read_to_string(&path).on("read", &path)
}

/// The nearest directory at or above a path that exists, without symlinks.
fn existing(path: &Path) -> Result<PathBuf, FileError> {
    for ancestor in path
        .ancestors()
        .filter(|ancestor| ancestor.as_os_str() != "")
    {
        match ancestor.canonicalize() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found.on("look at", ancestor),
        }
    }
    Path::new(".").canonicalize().on("look at", ".")
}

#[cfg(test)]
mod tests;
