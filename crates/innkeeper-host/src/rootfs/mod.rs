//! File trees of guests.
//!
//! The store records the guests with a tree; a driver implements the tree. [`DirRootfs`] uses plain directories,
//! [`LvmRootfs`] a thin volume of LVM for each guest. Both create the same skeleton, at the same place.

use std::path::PathBuf;
use std::time::Duration;

use innkeeper_facilities::{FacilityError, FilesMissing};
use innkeeper_model::{Code, Explain, GuestName, SnapshotLabel};

use crate::FileError;
use crate::command::CommandError;

mod dir;
mod lvm;
mod profile;
mod skeleton;

pub use dir::{DirConfig, DirRootfs};
pub use lvm::{LvmConfig, LvmRootfs, PoolUse};

/// The time limit of counting the space that trees take.
const USAGE_TIME: Duration = Duration::from_secs(2);

/// A failed operation on a file tree.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// A file in or around it.
    #[error(transparent)]
    File(#[from] FileError),
    /// Too little space is left for another tree.
    #[error(
        "{} has {free_mib} MiB left; a new guest or snapshot needs {needed_mib} MiB",
        path.display(),
        free_mib = free >> 20,
        needed_mib = needed.div_ceil(1 << 20)
    )]
    DiskFull {
        /// The directory of the trees.
        path: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that must be free.
        needed: u64,
    },
    /// An object to sweep that [`observe`](innkeeper_facilities::Resource::observe) does not return.
    #[error("'{object}' is not a file tree of Innkeeper in {}", path.display())]
    Foreign {
        /// The object.
        object: String,
        /// The directory of the trees.
        path: PathBuf,
    },
    /// LVM, or a program for file systems.
    #[error("cannot {action} {object}")]
    Volume {
        /// The failed action, such as `create`.
        action: &'static str,
        /// The object.
        object: String,
        /// The error of the program.
        #[source]
        source: CommandError,
    },
    /// `cp` did not copy a tree.
    #[error("cannot copy {}", path.display())]
    Copy {
        /// The source of the copy.
        path: PathBuf,
        /// The error of the program.
        #[source]
        source: CommandError,
    },
    /// The guest to copy has no tree.
    #[error("guest '{guest}' has no file tree")]
    NoTree {
        /// The guest.
        guest: GuestName,
    },
    /// The files of a destroyed agent are no longer on the host.
    #[error(transparent)]
    FilesMissing(#[from] FilesMissing),
    /// A volume that the guest needs is another daemon's, or has no mark.
    #[error("the volume {volume} is not this daemon's")]
    OtherDaemon {
        /// Volume group and volume.
        volume: String,
    },
    /// The snapshot is not on the host.
    #[error("guest '{guest}' has no snapshot '{label}'")]
    NoSnapshot {
        /// The guest.
        guest: GuestName,
        /// The label.
        label: SnapshotLabel,
    },
    /// The output of LVM does not have the expected form.
    #[error("cannot parse the report of lvs about the volume group '{group}'")]
    Report {
        /// The volume group.
        group: String,
        /// The parse error.
        #[source]
        source: serde_json::Error,
    },
    /// The pool does not exist, or is not a thin pool.
    #[error("the thin pool '{pool}' does not exist")]
    NoPool {
        /// Volume group and pool.
        pool: String,
    },
    /// The pool is too full for another volume.
    #[error(
        "the thin pool '{pool}' is nearly full ({used}); no guest or snapshot is added from {limit} % on"
    )]
    PoolFull {
        /// Volume group and pool.
        pool: String,
        /// Its use.
        used: PoolUse,
        /// The limit of its use, in percent.
        limit: u8,
    },
}

impl From<RootfsError> for FacilityError {
    fn from(error: RootfsError) -> Self {
        Self::new(error)
    }
}

impl Explain for RootfsError {
    fn code(&self) -> Code {
        match self {
            Self::File(error) => error.code_or(Code::RootfsFailed),
            Self::DiskFull { .. } | Self::PoolFull { .. } => Code::DiskFull,
            Self::Volume { source, .. } | Self::Copy { source, .. } => {
                source.code_or(Code::RootfsFailed)
            }
            Self::NoSnapshot { .. } => Code::SnapshotNotFound,
            Self::FilesMissing(error) => error.code(),
            Self::OtherDaemon { .. } => Code::DaemonConflict,
            Self::Foreign { .. }
            | Self::Report { .. }
            | Self::NoPool { .. }
            | Self::NoTree { .. } => Code::RootfsFailed,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::File(error) => error.remedy().or_else(|| {
                (error.source.kind() == std::io::ErrorKind::ResourceBusy).then(|| {
                    format!(
                        "Unmount it (`umount {}`), then try again.",
                        error.path.display()
                    )
                })
            }),
            Self::DiskFull { path, .. } => Some(format!(
                "Destroy guests (`agent list`) and delete snapshots (`agent snapshots`) that are no longer needed, or free space on the disk that holds {}.",
                path.display()
            )),
            Self::PoolFull {
                pool, used, limit, ..
            } => Some(lvm::make_room(pool, *used, *limit)),
            Self::NoPool { pool } => Some(lvm::make_pool(pool)),
            Self::Volume { source, .. } => lvm::damaged_pool(source)
                .map(lvm::repair_pool)
                .or_else(|| source.remedy()),
            Self::Copy { source, .. } => source.remedy(),
            Self::NoTree { guest } => Some(format!(
                "`agent start {guest}` makes one; a guest that never ran has nothing to copy."
            )),
            Self::NoSnapshot { guest, .. } => {
                Some(format!("`agent snapshots {guest}` lists its snapshots."))
            }
            Self::FilesMissing(error) => error.remedy(),
            Self::OtherDaemon { volume } => Some(format!(
                "See its tags with `lvs -o +lv_tags {volume}`. Give each daemon a `storage.volume_group` of its own; remove the volume if its daemon is gone (`lvremove {volume}`)."
            )),
            Self::Foreign { .. } | Self::Report { .. } => None,
        }
    }
}

/// A guest in slot 3, for tests.
#[cfg(test)]
pub(crate) fn test_guest(name: &str) -> innkeeper_model::Guest {
    use innkeeper_model::{
        ClosureSource, Cpus, DesiredState, GuestKind, GuestName, Limits, MemorySize, Slot,
        StorePath, UserIdCount,
    };
    let closure = StorePath::parse("/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest");
    innkeeper_model::Guest {
        name: GuestName::parse(name).expect(name),
        kind: GuestKind::Agent,
        slot: Slot::new(3),
        desired: DesiredState::Running,
        level: innkeeper_model::Level::Awake,
        source: ClosureSource::Path(closure.expect("valid")),
        closure: None,
        limits: Limits {
            memory: MemorySize::from_bytes(1 << 30),
            cpus: Cpus::from_percent(100),
            tasks: 100,
            user_ids: UserIdCount::default(),
            nesting: false,
        },
        ssh_host_key: None,
        fault: None,
        wake_failure: None,
        file_work: None,
        retain: None,
        change: None,
        last_change: None,
        own_system: None,
        declared: false,
        idle_policy: None,
        owner: None,
        created_at: jiff::Timestamp::UNIX_EPOCH,
    }
}
