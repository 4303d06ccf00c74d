//! The errors of this crate.

use std::io;
use std::path::{Path, PathBuf};

use innkeeper_model::{
    Code, DesiredState, Explain, FileWork, GuestName, OperationId, RetainedId, SlotRange,
    SnapshotLabel, Verb,
};
use rusqlite::ErrorCode;
use rusqlite::ffi;

/// Why the store did not do what it was asked for. When a method fails, nothing of it has happened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The name is taken.
    #[error("guest '{name}' exists already{}", match desired {
        DesiredState::Running => "",
        DesiredState::Stopped => " and is stopped",
        DesiredState::Absent => " and is being destroyed",
    })]
    GuestExists {
        /// The name.
        name: GuestName,
        /// What should be true of the guest that has it.
        desired: DesiredState,
    },
    /// No guest has this name.
    #[error("there is no guest '{name}'")]
    GuestNotFound {
        /// The name.
        name: GuestName,
    },
    /// An operation on the guest has not ended.
    #[error("guest '{guest}' is busy: operation {operation} ({verb}) has not ended")]
    GuestBusy {
        /// The guest.
        guest: GuestName,
        /// The operation that has not ended.
        operation: OperationId,
        /// What that operation does.
        verb: Verb,
    },
    /// The guest is to be removed, and some of it may be gone already: it can only be destroyed.
    #[error("guest '{guest}' is being destroyed")]
    GuestLeaving {
        /// The guest.
        guest: GuestName,
    },
    /// What was to be done with the guest's files before could not be done yet.
    #[error("guest '{guest}' is busy: {work} has not succeeded yet")]
    FilesBusy {
        /// The guest.
        guest: GuestName,
        /// What is to be done.
        work: FileWork,
    },
    /// No files of a destroyed agent of this name are kept.
    #[error("no destroyed agent named '{name}' has files that are kept")]
    RetainedNotFound {
        /// The name.
        name: GuestName,
    },
    /// No files of a destroyed agent have this number, or they are being removed or taken over.
    #[error("no files of a destroyed agent with the number {id} are kept")]
    FilesGone {
        /// The number.
        id: RetainedId,
    },
    /// Another guest has the name that an agent should have again.
    #[error("the name '{name}' is taken by another guest")]
    UndeletedNameTaken {
        /// The name.
        name: GuestName,
        /// What the destroyed agent was called.
        former: GuestName,
    },
    /// The guest has a snapshot of this label.
    #[error("guest '{guest}' has a snapshot '{label}' already")]
    SnapshotExists {
        /// The guest.
        guest: GuestName,
        /// The label.
        label: SnapshotLabel,
    },
    /// The guest has no snapshot of this label.
    #[error("guest '{guest}' has no snapshot '{label}'")]
    SnapshotNotFound {
        /// The guest.
        guest: GuestName,
        /// The label.
        label: SnapshotLabel,
    },
    /// The name is a preview's.
    #[error("the name '{name}' belongs to the preview of {owner}")]
    NameOfPreview {
        /// The name.
        name: GuestName,
        /// The pull request, or the repository and branch, of the preview.
        owner: String,
    },
    /// No preview has this slug.
    #[error("there is no preview '{slug}'")]
    PreviewNotFound {
        /// The slug.
        slug: GuestName,
    },
    /// Every slug that the preview could have belongs to another preview or to a guest.
    #[error("{owner} gets no preview: {}", taken(candidates))]
    SlugsTaken {
        /// The pull request, or the repository and branch, of the preview.
        owner: String,
        /// The slugs that were tried.
        candidates: Vec<GuestName>,
    },
    /// The branch has a preview, made by hand or of a pull request.
    #[error("{owner} has a preview already: '{slug}'")]
    BranchHasPreview {
        /// The repository and branch.
        owner: String,
        /// The preview.
        slug: GuestName,
    },
    /// No delivery has this id.
    #[error("there is no delivery '{id}'")]
    DeliveryNotFound {
        /// The id.
        id: String,
    },
    /// Every slot is taken.
    #[error("all {capacity} slots of the subnet {} are taken", subnet.subnet())]
    NoSlotLeft {
        /// The subnet.
        subnet: SlotRange,
        /// How many guests fit.
        capacity: usize,
    },
    /// The configured subnet would change the addresses of guests.
    #[error(
        "the subnet is now {} and was {}, which would change the addresses of {guests} guest(s)",
        is.subnet(), was.subnet()
    )]
    SubnetChanged {
        /// The subnet that the guests have their addresses from.
        was: SlotRange,
        /// The configured subnet.
        is: SlotRange,
        /// How many guests would get other addresses.
        guests: usize,
    },
    /// The file is not what we wrote.
    #[error("the database {} is damaged: {finding}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite found.
        finding: String,
    },
    /// The file is another program's database.
    #[error("{} is a database, but not one of Innkeeper", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A newer version wrote the file.
    #[error("the database {} has version {found}; this Innkeeper knows versions up to {known}", path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// The file's version.
        found: i64,
        /// The newest version that we know.
        known: i64,
    },
    /// The disk is full.
    #[error("the disk that holds the database {} is full", path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
        /// What was said.
        #[source]
        source: Cause,
    },
    /// The file or its directory may not be written.
    #[error("the database {} cannot be written", path.display())]
    PermissionDenied {
        /// The file.
        path: PathBuf,
        /// What was said.
        #[source]
        source: Cause,
    },
    /// Another program holds a lock on the file.
    #[error("another program is writing to the database {}", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
        /// What was said.
        #[source]
        source: Cause,
    },
    /// Anything else that the disk or SQLite says.
    #[error("database {}: cannot {action}", path.display())]
    Failed {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What was said.
        #[source]
        source: Cause,
    },
    /// The store was closed.
    #[error("the database is closed")]
    Closed,
}

/// What the kernel or SQLite said.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum Cause {
    /// The kernel.
    Io(#[from] io::Error),
    /// SQLite.
    Sqlite(#[from] rusqlite::Error),
}

impl StoreError {
    /// Tells by what the kernel said what kind of failure it is.
    pub(crate) fn from_io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let (path, kind) = (path.to_owned(), source.kind());
        let source = source.into();
        match kind {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path, source }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::PermissionDenied { path, source }
            }
            _ => Self::Failed {
                action,
                path,
                source,
            },
        }
    }

    /// Tells by what SQLite said what kind of failure it is.
    pub(crate) fn from_sqlite(action: &'static str, path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        let damaged = |source: &rusqlite::Error, path| Self::Damaged {
            path,
            finding: source.to_string(),
        };
        match &source {
            // We wrote these columns: a value that is none of ours was changed behind our back.
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..) => return damaged(&source, path),
            _ => {}
        }
        let code = source.sqlite_error_code();
        let extended = source.sqlite_extended_error_code();
        let cause = Cause::Sqlite;
        match (code, extended) {
            // The shared index of the log cannot grow; SQLite does not say "full" for it.
            (Some(ErrorCode::DiskFull), _) | (_, Some(ffi::SQLITE_IOERR_SHMSIZE)) => {
                Self::DiskFull {
                    path,
                    source: cause(source),
                }
            }
            (Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase), _) => {
                damaged(&source, path)
            }
            (
                Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly | ErrorCode::CannotOpen),
                _,
            ) => Self::PermissionDenied {
                path,
                source: cause(source),
            },
            (Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked), _) => Self::Locked {
                path,
                source: cause(source),
            },
            _ => Self::Failed {
                action,
                path,
                source: cause(source),
            },
        }
    }
}

fn taken(candidates: &[GuestName]) -> String {
    match candidates {
        [] => "no slug was given for it".to_owned(),
        [one] => format!("the slug '{one}' is taken"),
        [first, rest @ ..] => format!(
            "the slug '{first}' is taken, and so are {} others",
            rest.len()
        ),
    }
}

impl Explain for StoreError {
    fn code(&self) -> Code {
        match self {
            Self::GuestExists { .. } | Self::UndeletedNameTaken { .. } => Code::GuestExists,
            Self::RetainedNotFound { .. } | Self::FilesGone { .. } => Code::RetainedNotFound,
            Self::GuestNotFound { .. } => Code::GuestNotFound,
            Self::GuestBusy { .. } | Self::GuestLeaving { .. } | Self::FilesBusy { .. } => {
                Code::GuestBusy
            }
            Self::SnapshotExists { .. } => Code::SnapshotExists,
            Self::SnapshotNotFound { .. } => Code::SnapshotNotFound,
            Self::NameOfPreview { .. } => Code::GuestExists,
            Self::PreviewNotFound { .. } => Code::PreviewNotFound,
            Self::SlugsTaken { .. } | Self::BranchHasPreview { .. } => Code::SlugConflict,
            Self::DeliveryNotFound { .. } => Code::DeliveryNotFound,
            Self::NoSlotLeft { .. } => Code::NoSlotLeft,
            Self::SubnetChanged { .. } | Self::Foreign { .. } => Code::InvalidConfig,
            Self::Damaged { .. } => Code::StoreDamaged,
            Self::TooNew { .. } => Code::StoreTooNew,
            Self::DiskFull { .. } => Code::DiskFull,
            Self::PermissionDenied { .. } => Code::PermissionDenied,
            Self::Locked { .. } => Code::StateLocked,
            Self::Failed { .. } => Code::StoreFailed,
            Self::Closed => Code::ShuttingDown,
        }
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::GuestExists { name, desired } => match desired {
                DesiredState::Absent => format!(
                    "Wait until it is gone (`agent list`), or choose another name than '{name}'."
                ),
                _ => format!(
                    "Choose another name than '{name}'; `agent list` and `preview list` show the names in use."
                ),
            },
            Self::RetainedNotFound { .. } | Self::FilesGone { .. } => {
                "`agent list --all` shows the destroyed agents whose files are kept.".to_owned()
            }
            Self::UndeletedNameTaken { former, .. } => format!(
                "Choose another name: `agent undelete {former} --as NEW`; `agent list` shows the names in use."
            ),
            Self::GuestNotFound { .. } => "`agent list` shows the guests there are.".to_owned(),
            Self::GuestBusy { guest, .. } => format!(
                "Wait until it has ended; `innkeeper events --guest {guest}` shows its progress."
            ),
            Self::GuestLeaving { guest } => format!(
                "Wait until it is gone; `innkeeper events --guest {guest}` shows what stands in the way."
            ),
            Self::FilesBusy { guest, .. } => format!(
                "innkeeperd tries it again by itself; `innkeeper events --guest {guest}` shows what stands in the way."
            ),
            Self::SnapshotExists { guest, label } => format!(
                "Choose another label, or delete that one first: `agent snapshot {guest} --delete {label}`."
            ),
            Self::SnapshotNotFound { guest, .. } => {
                format!("`agent snapshots {guest}` shows the snapshots there are.")
            }
            Self::NameOfPreview { .. } => "Choose another name; `preview list` shows the previews there are.".to_owned(),
            Self::PreviewNotFound { .. } => "`preview list` shows the previews there are.".to_owned(),
            Self::SlugsTaken { candidates, .. } => match candidates.first() {
                Some(slug) => format!(
                    "Choose a slug with `preview create --slug`; `preview list` and `agent list` show who has '{slug}'."
                ),
                None => "Choose a slug with `preview create --slug`.".to_owned(),
            },
            Self::BranchHasPreview { slug, .. } => format!(
                "`preview update {slug}` brings it up to date, `preview destroy {slug}` removes it."
            ),
            Self::DeliveryNotFound { .. } => "`innkeeper deliveries` shows the deliveries that are kept.".to_owned(),
            Self::NoSlotLeft { .. } => "Destroy a guest that is not needed (`agent list`), or give Innkeeper a larger subnet (network.subnet); `innkeeper slots` shows who has which slot.".to_owned(),
            Self::SubnetChanged { was, .. } => format!(
                "Set network.subnet back to \"{}\", or destroy those guests before it is changed.",
                was.subnet()
            ),
            Self::Damaged { path, .. } => {
                let path = path.display();
                // Tried: Debian 12's sqlite3 is built without what `.recover` needs.
                format!(
                    "Stop innkeeperd, then restore a backup of {path}, or save what can be read with `sqlite3 {path} .recover | sqlite3 {path}.new` (sqlite3 of Debian 12 cannot) and put the new file in its place, or move the file aside, with {path}-wal and {path}-shm, to begin without guests."
                )
            }
            Self::Foreign { path } => format!(
                "Point Innkeeper's state directory at a directory of its own, or move {} aside.",
                path.display()
            ),
            Self::TooNew { .. } => {
                "Start the newer Innkeeper that wrote it, or restore the backup made before that one was installed.".to_owned()
            }
            Self::DiskFull { path, .. } => format!(
                "Free space on the disk that holds {} (`agent list` shows guests that may go), then try again.",
                path.display()
            ),
            Self::PermissionDenied { path, .. } => format!(
                "Give innkeeperd the right to write {} and the directory that it is in; it normally runs as root.",
                path.display()
            ),
            Self::Locked { path, .. } => format!(
                "End the other program (`fuser {}` names it), then try again.",
                path.display()
            ),
            Self::Failed { .. } | Self::Closed => return None,
        })
    }
}

/// Why a query ended, before it is known for which file and to what end it was made.
#[derive(Debug)]
pub(crate) enum QueryError {
    /// The store refuses.
    Refused(StoreError),
    /// SQLite does.
    Sqlite(rusqlite::Error),
}

impl QueryError {
    /// Adds what was tried, on which file.
    pub(crate) fn explain(self, action: &'static str, path: &Path) -> StoreError {
        match self {
            Self::Refused(error) => error,
            Self::Sqlite(source) => StoreError::from_sqlite(action, path, source),
        }
    }
}

impl From<StoreError> for QueryError {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

impl From<rusqlite::Error> for QueryError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}
