//! File trees of guests.
//!
//! The store says which guest has a tree; a driver decides what a tree is made of. [`DirRootfs`] keeps
//! plain directories. A driver for thin volumes has the same trait,
//! [`Rootfs`](crate::facilities::Rootfs), and gives its tree the same skeleton.

use std::path::PathBuf;

use innkeeper_model::{Code, Explain};

use crate::FileError;

mod dir;
mod skeleton;

pub use dir::{DirConfig, DirRootfs};

/// A file tree that could not be made, listed or removed.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// A file in or around it.
    #[error(transparent)]
    File(#[from] FileError),
    /// So little space is left that no further tree is made.
    #[error(
        "{} has {free_mib} MiB left; a new guest needs {needed_mib} MiB",
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
    /// Something that was not found by [`observe`](crate::facilities::Resource::observe) was to be swept.
    #[error("'{object}' is no file tree of ours in {}", path.display())]
    Foreign {
        /// What was to be swept.
        object: String,
        /// The directory of the trees.
        path: PathBuf,
    },
}

impl Explain for RootfsError {
    fn code(&self) -> Code {
        match self {
            Self::File(error) => error.code_or(Code::RootfsFailed),
            Self::DiskFull { .. } => Code::DiskFull,
            Self::Foreign { .. } => Code::RootfsFailed,
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
                "Destroy guests that are no longer needed (`agent list`), or free space on the disk that holds {}.",
                path.display()
            )),
            Self::Foreign { .. } => None,
        }
    }
}

/// A guest in slot 3, for tests.
#[cfg(test)]
pub(crate) fn test_guest(name: &str) -> innkeeper_model::Guest {
    use innkeeper_model::{
        ClosureSource, Cpus, GuestKind, GuestName, Limits, MemorySize, Slot, StorePath, Want,
    };
    let closure = StorePath::parse("/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest");
    innkeeper_model::Guest {
        name: GuestName::parse(name).expect(name),
        kind: GuestKind::Agent,
        slot: Slot::new(3),
        want: Want::Running,
        source: ClosureSource::Path(closure.expect("valid")),
        closure: None,
        limits: Limits {
            memory: MemorySize::from_bytes(1 << 30),
            cpus: Cpus::from_percent(100),
            tasks: 100,
        },
        ssh_host_key: None,
        fault: None,
        created_at: jiff::Timestamp::UNIX_EPOCH,
    }
}
