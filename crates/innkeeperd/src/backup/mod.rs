//! Backups of the host's guests, and their restore on another host.
//!
//! A set is a directory of plain files, so that a backup program can deduplicate and store it:
//!
//! ```text
//! <directory>/set/manifest.json            written last
//! <directory>/set/innkeeper.db             a consistent copy of the database
//! <directory>/set/guests/<name>/rootfs/    a guest's files, with their owners and attributes
//! <directory>/set/databases/<preview>.dump, <preview>.password
//! <directory>/set/closures/                a binary cache of Nix, on request
//! ```
//!
//! A new set is made as `<directory>/.innkeeper-new` and exchanged with `set`, so that `set` is always a whole one. The file `backup`
//! in the state directory names the directory meanwhile: the next start of the daemon removes the new set and continues
//! guests that were suspended.
//!
//! The contents of guests and databases are other people's. So one that cannot be copied or restored is reported, and the
//! others are.

mod manifest;
mod restore;
mod take;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use innkeeper_engine::{Engine, EngineError};
use innkeeper_facilities::FacilityError;
use innkeeper_host::{FileError, FileErrorExt, tree};
use innkeeper_model::api::{Accepted, BackupRequest, RestoreRequest};
use innkeeper_model::{Code, Explain, Failure, Trust, Verb, chain};
use innkeeper_preview::Previews;
use innkeeper_store::StoreError;
use tokio::sync::Mutex;
use tracing::warn;

use self::manifest::Set;
use crate::api_error::ApiError;

/// A backup or restore that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A guest.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A closure, or a preview's database.
    #[error(transparent)]
    Host(#[from] FacilityError),
    /// The directory is readable by others, or another user's.
    #[error("{} is not a directory that only root can enter", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
    },
    /// The place of the set is taken.
    #[error("{} is no backup set", set.display())]
    Foreign {
        /// The file or directory there.
        set: PathBuf,
    },
    /// The disk has no space for another set.
    #[error(
        "a backup set needs {} MiB or more, and {} has {} MiB left",
        needed.div_ceil(1 << 20),
        directory.display(),
        free >> 20
    )]
    NoSpace {
        /// The directory of sets.
        directory: PathBuf,
        /// The bytes that the guests' files take.
        needed: u64,
        /// The bytes that are free.
        free: u64,
    },
    /// Guests or databases could not be copied. The set has all others.
    #[error("the backup set has no {}", parts.join(", no "))]
    Parts {
        /// What is missing.
        parts: Vec<String>,
    },
    /// The path is relative.
    #[error("'{}' is not an absolute path", path.display())]
    Relative {
        /// The path.
        path: PathBuf,
    },
    /// The set has no manifest.
    #[error("{} is no complete backup set: it has no manifest.json", set.display())]
    Incomplete {
        /// The set.
        set: PathBuf,
    },
    /// The manifest cannot be used.
    #[error("{}: {problem}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// A directory of the set is something else.
    #[error("{} is not a directory", path.display())]
    NoDirectory {
        /// The path.
        path: PathBuf,
    },
    /// A part of the set differs from its manifest.
    #[error("{} is damaged: it differs from the manifest of its backup set", path.display())]
    Damaged {
        /// The part.
        path: PathBuf,
    },
    /// The set lacks a requested guest.
    #[error("the backup set has no guest or preview '{name}'")]
    Missing {
        /// The name.
        name: String,
        /// The names that it has.
        known: String,
    },
    /// The set has a database, and the host has no server for it.
    #[error(
        "the backup set has a database of preview '{preview}', and this host has no PostgreSQL for previews"
    )]
    NoServer {
        /// The preview.
        preview: String,
    },
}

impl Explain for BackupError {
    fn code(&self) -> Code {
        match self {
            Self::File(error) => error.code_or(Code::BackupFailed),
            Self::Store(error) => error.code(),
            Self::Engine(error) => error.code(),
            Self::Host(error) => error.code(),
            Self::Open { .. } | Self::Relative { .. } | Self::Foreign { .. } => {
                Code::InvalidRequest
            }
            Self::NoSpace { .. } => Code::DiskFull,
            Self::Parts { .. } => Code::BackupFailed,
            Self::Incomplete { .. }
            | Self::Manifest { .. }
            | Self::NoDirectory { .. }
            | Self::Damaged { .. } => Code::BackupInvalid,
            Self::Missing { .. } => Code::GuestNotFound,
            Self::NoServer { .. } => Code::InvalidConfig,
        }
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::File(error) if error.source.kind() == io::ErrorKind::ReadOnlyFilesystem => format!(
                "The daemon's unit may write only to its own directories, such as /var/lib/innkeeper-backup. Add `ReadWritePaths={}` \
                 to it (`systemctl edit innkeeper`) and restart it.",
                error.path.parent().unwrap_or(&error.path).display()
            ),
            Self::File(error) => return error.remedy(),
            Self::Store(error) => return error.remedy(),
            Self::Engine(error) => return error.remedy(),
            Self::Host(error) => return error.remedy(),
            Self::Open { path } => {
                let path = path.display();
                format!("A backup contains all secrets of the guests: `chown root: {path}` and `chmod 0700 {path}`.")
            }
            Self::Foreign { set } => format!(
                "Give another directory, or move {} away: a new set would replace it.",
                set.display()
            ),
            Self::NoSpace { .. } => "Free space on its disk, or give a directory on another disk (`--to`). The former set stays until the new one is complete.".to_owned(),
            Self::Parts { .. } => "The lines above have the reasons. The set is in place with everything else; \
                 `--allow-incomplete` makes that a success."
                .to_owned(),
            Self::Relative { .. } => "Give a path that begins with '/'.".to_owned(),
            Self::Incomplete { .. } => "Give the directory of `innkeeper backup --to`, as it was backed up.".to_owned(),
            Self::Manifest { .. } | Self::NoDirectory { .. } | Self::Damaged { .. } => {
                "Restore the set again from the backup, with owners and modes, or use an older one.".to_owned()
            }
            Self::Missing { known, .. } => format!("It has: {known}."),
            Self::NoServer { .. } => {
                "Set database.socket_dir in innkeeperd's configuration (docs/previews-host.md), or name the guests to restore.".to_owned()
            }
        })
    }

    fn log(&self) -> &[String] {
        match self {
            Self::Store(error) => error.log(),
            Self::Engine(error) => error.log(),
            Self::Host(error) => error.log(),
            _ => &[],
        }
    }
}

/// Makes and restores backup sets, one at a time. Clones share this.
#[derive(Clone)]
pub(crate) struct Backups {
    engine: Engine,
    previews: Option<Previews>,
    state_dir: PathBuf,
    alone: Arc<Mutex<()>>,
}

impl Backups {
    pub(crate) fn new(engine: Engine, previews: Option<Previews>, state_dir: PathBuf) -> Self {
        Self {
            engine,
            previews,
            state_dir,
            alone: Arc::default(),
        }
    }

    /// Starts a backup.
    pub(crate) async fn take(
        &self,
        request: BackupRequest,
        actor: &str,
        trust: Trust,
    ) -> Result<Accepted, ApiError> {
        require_root(trust)?;
        let alone = self.begin()?;
        let backups = self.clone();
        let started = self
            .engine
            .run_operation(Verb::Backup, actor, |log| async move {
                let _alone = alone;
                let made = backups.make_set(&request, &log).await;
                made.map_err(|error| Failure::from(&error))
            });
        Ok(started.await?)
    }

    /// Starts a restore.
    pub(crate) async fn restore(
        &self,
        request: RestoreRequest,
        actor: &str,
        trust: Trust,
    ) -> Result<Accepted, ApiError> {
        require_root(trust)?;
        let alone = self.begin()?;
        let backups = self.clone();
        let verb = Verb::RestoreBackup;
        let started = self.engine.run_operation(verb, actor, |log| async move {
            let _alone = alone;
            let restored = backups.restore_set(&request, &log).await;
            restored.map_err(|error| Failure::from(&error))
        });
        Ok(started.await?)
    }

    fn begin(&self) -> Result<tokio::sync::OwnedMutexGuard<()>, ApiError> {
        Arc::clone(&self.alone).try_lock_owned().map_err(|_| {
            let failure = Failure::new(Code::GuestBusy, "a backup or restore is in progress");
            ApiError(
                failure.with_remedy("Wait for its end; `innkeeper events` shows its progress."),
            )
        })
    }

    /// The file that names the directory of a backup in progress.
    fn marker(&self) -> PathBuf {
        marker(&self.state_dir)
    }
}

fn marker(state_dir: &Path) -> PathBuf {
    state_dir.join("backup")
}

/// Removes what an interrupted backup or restore has left. For the start of the daemon.
pub(crate) async fn clean_up(engine: &Engine, state_dir: &Path) {
    let copy = restore::copy_of_store(state_dir);
    if let Err(error) = tree::blocking(move || restore::remove_copy(&copy)).await {
        warn!("{}", chain(&error));
    }
    let marker = marker(state_dir);
    let directory = match fs::read(&marker) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => {
            warn!("cannot read {}: {error}", marker.display());
            return;
        }
        Ok(text) => PathBuf::from(std::ffi::OsString::from_vec(text)),
    };
    let is_abandoned = engine.abandon_exports().await;
    let removed = tree::blocking(move || {
        tree::remove(&directory.join(NEW))?;
        // Otherwise the next start tries again.
        if is_abandoned {
            tree::remove(&marker)?;
        }
        Ok(())
    });
    let removed: Result<(), FileError> = removed.await;
    if let Err(error) = removed {
        warn!("{}", chain(&error));
    }
}

/// The name of a set in the making.
const NEW: &str = ".innkeeper-new";

/// The name of the complete set.
const SET: &str = "set";

/// Records the directory of a backup before anything is written to it.
fn mark(marker: &Path, directory: &Path) -> Result<(), FileError> {
    fs::write(marker, directory.as_os_str().as_bytes()).on("write", marker)
}

/// Fails if something else than a set is where the new one goes.
fn require_place(directory: &Path) -> Result<(), BackupError> {
    let set = Set(directory.join(SET));
    match fs::symlink_metadata(&set.0) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(seen) if seen.is_dir() && set.manifest().is_file() => Ok(()),
        _ => Err(BackupError::Foreign { set: set.0 }),
    }
}

fn require_root(trust: Trust) -> Result<(), ApiError> {
    match trust {
        Trust::Host => Ok(()),
        Trust::Member => {
            let text = "only root may make and restore backups";
            let failure = Failure::new(Code::InvalidRequest, text);
            Err(ApiError(
                failure.with_remedy("Run it as root (`sudo innkeeper backup`)."),
            ))
        }
    }
}

/// Creates the directory of sets if it is missing. Fails if others can enter it.
fn prepare(directory: &Path) -> Result<(), BackupError> {
    if !directory.is_absolute() {
        let path = directory.to_owned();
        return Err(BackupError::Relative { path });
    }
    let mut builder = DirBuilder::new();
    let created = builder.recursive(true).mode(0o700).create(directory);
    created.on("create", directory)?;
    require_closed(directory)
}

/// Fails unless a directory, not a link, belongs to the daemon's user and is closed to others.
fn require_closed(directory: &Path) -> Result<(), BackupError> {
    let seen = fs::symlink_metadata(directory).on("inspect", directory)?;
    let own = nix::unistd::geteuid().as_raw();
    if seen.is_dir() && seen.uid() == own && seen.mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(BackupError::Open {
        path: directory.to_owned(),
    })
}
