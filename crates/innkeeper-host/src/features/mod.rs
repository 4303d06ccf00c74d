//! Features of this kernel and this host, detected once at the start.

mod cgroup;
mod limits;
pub(crate) mod mounts;
mod probe;

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use innkeeper_facilities::{FacilityError, GuestUserIds, HostFeatures};
use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::{Code, Explain, MAX_SLOT, Slot, chain};
use serde::{Deserialize, Serialize};

use crate::{FileError, FileErrorExt};
pub use cgroup::CgroupVersion;
use mounts::Release;

/// The mapping of a guest's user IDs to the host's, and the owner of its files on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserIds {
    /// No user namespace: the guest's root is the host's root.
    Host,
    /// A user namespace and an idmapped mount: files belong to IDs from 0 on disk.
    Mapped,
    /// A user namespace on a filesystem without idmapped mounts: files belong to the guest's range on disk.
    Shifted,
}

impl UserIds {
    /// Returns the owner on disk of a file that belongs to `id` inside the guest.
    #[must_use]
    pub fn on_disk(self, slot: Slot, id: u32) -> u32 {
        match self {
            Self::Host | Self::Mapped => id,
            Self::Shifted => slot.first_user_id() + id,
        }
    }
}

/// The configured use of user namespaces for guests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserIdsChoice {
    /// Use them where the kernel allows it.
    #[default]
    Auto,
    /// Require them: the daemon does not start without.
    On,
    /// Do not use them: a guest's root is the host's root, confined by capabilities alone.
    Off,
}

/// A missing feature that guests require.
#[derive(Debug, thiserror::Error)]
pub enum FeatureError {
    /// The kernel was built without one kind of namespace.
    #[error("the kernel has no {kind} namespaces")]
    NoNamespaces {
        /// The kind, as in namespaces(7).
        kind: &'static str,
    },
    /// The configuration requires user namespaces, and the host cannot provide them.
    #[error("cannot use user namespaces for guests: {0}")]
    NoUserNamespaces(Lack),
    /// A file of the kernel or the state directory cannot be read.
    #[error("cannot detect the features of this host")]
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
                "Use a kernel with CONFIG_NAMESPACES, CONFIG_NET_NS and CONFIG_PID_NS, as all distributions build it.".to_owned(),
            ),
            Self::NoUserNamespaces(lack) => Some(format!(
                "{} Or set `guest.user_namespace = \"auto\"` to allow guests without them.",
                lack.remedy()
            )),
            Self::Unreadable(error) => error.remedy(),
        }
    }
}

/// The reason why guests cannot have user namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// The kernel was built without them.
    #[error("the kernel does not support them")]
    Kernel,
    /// The administrator forbids them.
    #[error("user.max_user_namespaces is 0")]
    Forbidden,
    /// The daemon runs in a user namespace that lacks the guests' IDs.
    #[error("innkeeperd runs in a user namespace without the guests' IDs {first} to {last}", first = first_id(), last = last_id())]
    Ids,
}

impl Lack {
    fn remedy(self) -> String {
        match self {
            Self::Kernel => "Use a kernel with CONFIG_USER_NS.".to_owned(),
            Self::Forbidden => {
                "Allow them with `sysctl user.max_user_namespaces=2147483647`, and add the setting to a file in /etc/sysctl.d."
                    .to_owned()
            }
            Self::Ids => {
                "Run innkeeperd on the host itself, or in a container that has all user IDs."
                    .to_owned()
            }
        }
    }
}

/// The detected features.
#[derive(Clone, Debug)]
pub struct Features {
    /// The mapping of user IDs, from the configuration and the host's abilities.
    pub user_ids: UserIds,
    /// True if the host can provide user namespaces.
    pub user_namespaces: bool,
    /// True if the state directory's filesystem supports idmapped mounts.
    pub idmapped_mounts: bool,
    /// The type of the state directory's filesystem, such as `ext4`.
    pub filesystem: String,
    /// The cgroup version and controllers that limit guests.
    pub cgroup: CgroupVersion,
    /// True if systemd is PID 1.
    pub systemd: bool,
    choice: UserIdsChoice,
    lack: Option<Lack>,
}

impl Features {
    /// Detects the features of the host. `state_dir`, or its nearest existing ancestor, is the directory for guests' files.
    ///
    /// # Errors
    /// Fails if guests cannot run here, or not as the configuration requires.
    pub fn detect(state_dir: &Path, choice: UserIdsChoice) -> Result<Self, FeatureError> {
        Self::detect_in(Path::new("/"), &existing(state_dir)?, choice)
    }

    /// Implements [`Self::detect`] with the kernel's files below `root`. `state_dir` must not contain symbolic links.
    fn detect_in(
        root: &Path,
        state_dir: &Path,
        choice: UserIdsChoice,
    ) -> Result<Self, FeatureError> {
        for (file, kind) in [("net", "network"), ("pid", "PID"), ("mnt", "mount")] {
            if !root.join("proc/self/ns").join(file).exists() {
                return Err(FeatureError::NoNamespaces { kind });
            }
        }
        let lack = lack_of_user_namespaces(root)?;
        if let (UserIdsChoice::On, Some(lack)) = (choice, lack) {
            return Err(FeatureError::NoUserNamespaces(lack));
        }
        let mounts = mounts::parse(&read(root, "proc/self/mountinfo")?);
        let filesystem = mounts::holding(&mounts, state_dir)
            .map_or_else(|| "unknown".to_owned(), |mount| mount.filesystem.clone());
        let release = Release::parse(&read(root, "proc/sys/kernel/osrelease")?);
        let idmapped_mounts =
            release.is_some_and(|release| mounts::is_mappable(&filesystem, release));
        let user_ids = match (choice, lack) {
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
            choice,
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
                    "guests have user namespaces, but {filesystem} does not support idmapped mounts here: the owner of each file of a guest is changed on disk"
                ),
                Some(
                    "Put the state directory on ext4, xfs or btrfs, on Linux 5.15 or newer."
                        .to_owned(),
                ),
            ),
            (UserIds::Host, Some(lack)) if self.choice != UserIdsChoice::Off => (
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

    fn guest_user_ids(&self) -> GuestUserIds {
        match self.user_ids {
            UserIds::Host => GuestUserIds::OfHost,
            // nspawn changes the owners of files only within the ids of one slot.
            UserIds::Shifted => GuestUserIds::OneSlot,
            UserIds::Mapped => GuestUserIds::SeveralSlots,
        }
    }

    /// Also probes some features in a temporary network namespace.
    async fn check(&self) -> Vec<Check> {
        let mut checks = vec![self.check_user_ids(), self.check_cgroup()];
        checks.extend(limits::check(Path::new("/")));
        match probe::run().await {
            Ok(probes) => {
                checks.push(probed("veth", "veth pairs can be created", &probes.veth));
                checks.push(probed("nf_tables", "the kernel accepts the firewall's rules", &probes.nftables));
            }
            Err(error) => checks.push(Check {
                subject: "network namespaces".to_owned(),
                verdict: Verdict::Broken,
                finding: format!("cannot create a network namespace: {error}"),
                remedy: Some("Run innkeeperd as root or with CAP_SYS_ADMIN, and set `sysctl user.max_net_namespaces` above 0.".to_owned()),
            }),
        }
        checks
    }
}

fn probed(subject: &str, success: &str, result: &Result<(), FacilityError>) -> Check {
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

/// Reports whether an ID map (user_namespaces(7): first ID inside, first ID outside, count) covers all IDs of guests.
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

/// Returns the nearest existing directory at or above a path, without symbolic links.
fn existing(path: &Path) -> Result<PathBuf, FileError> {
    for ancestor in path
        .ancestors()
        .filter(|ancestor| ancestor.as_os_str() != "")
    {
        match ancestor.canonicalize() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found.on("read", ancestor),
        }
    }
    Path::new(".").canonicalize().on("read", ".")
}

#[cfg(test)]
mod tests;
