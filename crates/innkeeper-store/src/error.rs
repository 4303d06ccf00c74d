//! The errors of this crate.

use std::io;
use std::path::{Path, PathBuf};

use innkeeper_model::access::{GrantId, TokenName};
use innkeeper_model::{
    Code, DesiredState, Explain, FileWork, GuestKind, GuestName, OperationId, RetainedId,
    SlotRange, SnapshotLabel, Verb,
};
use rusqlite::ErrorCode;
use rusqlite::ffi;

/// An error of a [`Store`](crate::Store) method. A method that fails has changed no data.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The name is taken.
    #[error("guest '{name}' already exists{}", match desired {
        DesiredState::Running => "",
        DesiredState::Stopped => " and is stopped",
        DesiredState::Absent => " and is being destroyed",
    })]
    GuestExists {
        /// The name.
        name: GuestName,
        /// The desired state of the guest that has it.
        desired: DesiredState,
    },
    /// No guest has this name.
    #[error("guest '{name}' does not exist")]
    GuestNotFound {
        /// The name.
        name: GuestName,
    },
    /// An operation is running on the guest.
    #[error("guest '{guest}' is busy: operation {operation} ({verb}) has not ended")]
    GuestBusy {
        /// The guest.
        guest: GuestName,
        /// The running operation.
        operation: OperationId,
        /// The verb of that operation.
        verb: Verb,
    },
    /// The guest is being destroyed, and some of its resources may be gone already.
    #[error("guest '{guest}' is being destroyed")]
    GuestLeaving {
        /// The guest.
        guest: GuestName,
    },
    /// The guest should not run, so it has no level.
    #[error("guest '{guest}' is stopped")]
    GuestStopped {
        /// The guest.
        guest: GuestName,
        /// Its kind.
        kind: GuestKind,
    },
    /// The guest has no processes that could be paused.
    #[error("guest '{guest}' is asleep and cannot be paused")]
    GuestAsleep {
        /// The guest.
        guest: GuestName,
        /// Its kind.
        kind: GuestKind,
    },
    /// The guest's earlier file work has not succeeded yet.
    #[error("guest '{guest}' is busy: {work} has not succeeded yet")]
    FilesBusy {
        /// The guest.
        guest: GuestName,
        /// The pending file work.
        work: FileWork,
    },
    /// No destroyed agent of this name has retained files.
    #[error("no destroyed agent named '{name}' has files that are kept")]
    RetainedNotFound {
        /// The name.
        name: GuestName,
    },
    /// No retained files have this number, or they are being removed or taken over.
    #[error("no files of a destroyed agent with the number {id} are kept")]
    FilesGone {
        /// The number.
        id: RetainedId,
    },
    /// Another guest has the name that an undeleted agent should have.
    #[error("the name '{name}' is taken by another guest")]
    UndeletedNameTaken {
        /// The name.
        name: GuestName,
        /// The name of the destroyed agent.
        former: GuestName,
    },
    /// A token that is not revoked has the name.
    #[error("a token named '{name}' already exists")]
    TokenExists {
        /// The name.
        name: TokenName,
    },
    /// No token that is not revoked has this name.
    #[error("no token is named '{name}'")]
    TokenNotFound {
        /// The name.
        name: TokenName,
    },
    /// The preview has no share link or token with this number.
    #[error("preview '{slug}' has no share link or token {id}")]
    GrantNotFound {
        /// The preview.
        slug: GuestName,
        /// The number.
        id: GrantId,
    },
    /// The guest already has a snapshot with this label.
    #[error("guest '{guest}' already has a snapshot '{label}'")]
    SnapshotExists {
        /// The guest.
        guest: GuestName,
        /// The label.
        label: SnapshotLabel,
    },
    /// The guest has no snapshot with this label.
    #[error("guest '{guest}' has no snapshot '{label}'")]
    SnapshotNotFound {
        /// The guest.
        guest: GuestName,
        /// The label.
        label: SnapshotLabel,
    },
    /// The name belongs to a preview.
    #[error("the name '{name}' belongs to the preview of {owner}")]
    NameOfPreview {
        /// The name.
        name: GuestName,
        /// The preview's pull request, or its repository and branch.
        owner: String,
    },
    /// A restore in progress is about to use the name.
    #[error("the name '{name}' belongs to a guest or preview that is being restored")]
    NameHeld {
        /// The name.
        name: GuestName,
    },
    /// No preview has this slug.
    #[error("preview '{slug}' does not exist")]
    PreviewNotFound {
        /// The slug.
        slug: GuestName,
    },
    /// Every candidate slug of the preview belongs to another preview or to a guest.
    #[error("cannot create a preview of {owner}: {}", taken(candidates))]
    SlugsTaken {
        /// The preview's pull request, or its repository and branch.
        owner: String,
        /// The candidate slugs.
        candidates: Vec<GuestName>,
    },
    /// The branch already has a preview, created by hand or for a pull request.
    #[error("{owner} already has a preview: '{slug}'")]
    BranchHasPreview {
        /// The repository and branch.
        owner: String,
        /// The preview.
        slug: GuestName,
    },
    /// No delivery has this id.
    #[error("delivery '{id}' does not exist")]
    DeliveryNotFound {
        /// The id.
        id: String,
    },
    /// Everything is to be restored, and the host has a guest or preview.
    #[error(
        "a backup can only be restored as a whole on a host without guests and previews; this one has '{record}'"
    )]
    HostInUse {
        /// One of them.
        record: String,
    },
    /// Every slot is taken.
    #[error("all {capacity} slots of the subnet {} are taken", subnet.subnet())]
    NoSlotLeft {
        /// The subnet.
        subnet: SlotRange,
        /// The number of slots.
        capacity: usize,
    },
    /// Slots are free, but not enough consecutive ones.
    #[error("no {count} consecutive slots of the subnet {} are free", subnet.subnet())]
    NoSlotRun {
        /// The subnet.
        subnet: SlotRange,
        /// The number of slots that the guest needs.
        count: u32,
    },
    /// The configured subnet would change the addresses of guests.
    #[error(
        "the subnet is now {} and was {}, which would change the addresses of {guests} guest(s)",
        is.subnet(), was.subnet()
    )]
    SubnetChanged {
        /// The subnet of the guests' addresses.
        was: SlotRange,
        /// The configured subnet.
        is: SlotRange,
        /// The number of guests that would get other addresses.
        guests: usize,
    },
    /// The file is damaged.
    #[error("the database {} is damaged: {finding}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// SQLite's finding.
        finding: String,
    },
    /// The file is another program's database.
    #[error("{} is not a database of Innkeeper", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A newer version wrote the file.
    #[error("the database {} has version {found}; this Innkeeper supports versions up to {known}", path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// The file's version.
        found: i64,
        /// The newest supported version.
        known: i64,
    },
    /// The disk is full.
    #[error("the disk that holds the database {} is full", path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
        /// The kernel's or SQLite's error.
        #[source]
        source: Cause,
    },
    /// The file or its directory may not be written.
    #[error("the database {} cannot be written", path.display())]
    PermissionDenied {
        /// The file.
        path: PathBuf,
        /// The kernel's or SQLite's error.
        #[source]
        source: Cause,
    },
    /// Another program holds a lock on the file.
    #[error("another program is writing to the database {}", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
        /// The kernel's or SQLite's error.
        #[source]
        source: Cause,
    },
    /// Any other error of the kernel or SQLite.
    #[error("database {}: cannot {action}", path.display())]
    Failed {
        /// Completes the sentence "cannot …".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's or SQLite's error.
        #[source]
        source: Cause,
    },
    /// The store was closed.
    #[error("the database is closed")]
    Closed,
}

/// The error of the kernel or SQLite that caused a [`StoreError`].
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum Cause {
    /// An error of the kernel.
    Io(#[from] io::Error),
    /// An error of SQLite.
    Sqlite(#[from] rusqlite::Error),
}

impl StoreError {
    /// Classifies an error of the kernel.
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

    /// Classifies an error of SQLite.
    pub(crate) fn from_sqlite(action: &'static str, path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        let damaged = |source: &rusqlite::Error, path| Self::Damaged {
            path,
            finding: source.to_string(),
        };
        match &source {
            // Only this crate writes the columns: another program changed a value that cannot be read.
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..) => return damaged(&source, path),
            _ => {}
        }
        let code = source.sqlite_error_code();
        let extended = source.sqlite_extended_error_code();
        let cause = Cause::Sqlite;
        match (code, extended) {
            // The shared index of the log cannot grow. SQLite does not report that as "full".
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
        [] => "no slug was given".to_owned(),
        [one] => format!("the slug '{one}' is taken"),
        [one, other] => format!("the slugs '{one}' and '{other}' are taken"),
        [first, rest @ ..] => format!("the slug '{first}' and {} others are taken", rest.len()),
    }
}

impl Explain for StoreError {
    fn code(&self) -> Code {
        match self {
            Self::GuestExists { .. } | Self::UndeletedNameTaken { .. } => Code::GuestExists,
            Self::RetainedNotFound { .. } | Self::FilesGone { .. } => Code::RetainedNotFound,
            Self::GuestNotFound { .. } => Code::GuestNotFound,
            Self::GuestBusy { .. }
            | Self::GuestLeaving { .. }
            | Self::FilesBusy { .. }
            | Self::NameHeld { .. } => Code::GuestBusy,
            Self::GuestStopped { .. } | Self::GuestAsleep { .. } => Code::GuestNotRunning,
            Self::TokenExists { .. } => Code::TokenExists,
            Self::TokenNotFound { .. } => Code::TokenNotFound,
            Self::GrantNotFound { .. } => Code::GrantNotFound,
            Self::SnapshotExists { .. } => Code::SnapshotExists,
            Self::SnapshotNotFound { .. } => Code::SnapshotNotFound,
            Self::NameOfPreview { .. } => Code::GuestExists,
            Self::PreviewNotFound { .. } => Code::PreviewNotFound,
            Self::SlugsTaken { .. } | Self::BranchHasPreview { .. } => Code::SlugConflict,
            Self::DeliveryNotFound { .. } => Code::DeliveryNotFound,
            Self::HostInUse { .. } => Code::HostInUse,
            Self::NoSlotLeft { .. } => Code::NoSlotLeft,
            Self::NoSlotRun { .. } => Code::NoSlotRun,
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
            Self::HostInUse { .. } => {
                "Name the guests to restore (`innkeeper restore --from DIRECTORY GUEST…`), or use a new host.".to_owned()
            }
            Self::RetainedNotFound { .. } | Self::FilesGone { .. } => {
                "`agent list --all` shows the destroyed agents whose files are kept.".to_owned()
            }
            Self::UndeletedNameTaken { former, .. } => format!(
                "Choose another name: `agent undelete {former} --as NEW`; `agent list` shows the names in use."
            ),
            Self::GuestNotFound { .. } => "`agent list` shows all guests.".to_owned(),
            Self::GuestBusy { guest, .. } => format!(
                "Wait until it has ended; `innkeeper events --guest {guest}` shows its progress."
            ),
            Self::GuestLeaving { guest } => format!(
                "Wait until it is gone; `innkeeper events --guest {guest}` shows its progress."
            ),
            Self::GuestStopped { guest, kind } => {
                format!("Start it first: `{kind} start {guest}`.")
            }
            Self::GuestAsleep { guest, kind } => {
                format!("Wake it first: `{kind} wake {guest}`.")
            }
            Self::FilesBusy { guest, .. } => format!(
                "innkeeperd retries it; `innkeeper events --guest {guest}` shows the cause."
            ),
            Self::TokenExists { name } => format!(
                "Choose another name, or revoke that token first: `innkeeper token revoke {name}`."
            ),
            Self::TokenNotFound { .. } => "`innkeeper token list` shows the tokens.".to_owned(),
            Self::GrantNotFound { slug, .. } => {
                format!("`preview shares {slug}` shows them.")
            }
            Self::SnapshotExists { guest, label } => format!(
                "Choose another label, or delete that snapshot first: `agent snapshot {guest} --delete {label}`."
            ),
            Self::SnapshotNotFound { guest, .. } => {
                format!("`agent snapshots {guest}` shows its snapshots.")
            }
            Self::NameOfPreview { .. } => "Choose another name; `preview list` shows all previews.".to_owned(),
            Self::NameHeld { .. } => "Wait for the end of the restore (`innkeeper events` shows its progress), or choose another name.".to_owned(),
            Self::PreviewNotFound { .. } => "`preview list` shows all previews.".to_owned(),
            Self::SlugsTaken { candidates, .. } => match candidates.first() {
                Some(slug) => format!(
                    "Choose a slug with `preview create --slug`; `preview list` and `agent list` show the owner of '{slug}'."
                ),
                None => "Choose a slug with `preview create --slug`.".to_owned(),
            },
            Self::BranchHasPreview { slug, .. } => format!(
                "`preview update {slug}` brings it up to date, `preview destroy {slug}` removes it."
            ),
            Self::DeliveryNotFound { .. } => "`innkeeper deliveries` shows the deliveries that are kept.".to_owned(),
            Self::NoSlotRun { .. } => "Create the guest with fewer user ids (--user-ids), destroy unneeded guests with neighboring slots (`innkeeper slots`), or configure a larger subnet (network.subnet).".to_owned(),
            Self::NoSlotLeft { .. } => "Destroy an unneeded guest (`agent list`), or configure a larger subnet (network.subnet); `innkeeper slots` shows the owner of each slot.".to_owned(),
            Self::SubnetChanged { was, .. } => format!(
                "Set network.subnet back to \"{}\", or destroy those guests before you change it.",
                was.subnet()
            ),
            Self::Damaged { path, .. } => {
                let path = path.display();
                // Debian 12's sqlite3 is built without the feature that `.recover` needs.
                format!(
                    "Stop innkeeperd, then restore a backup of {path}, or save what can be read with `sqlite3 {path} .recover | sqlite3 {path}.new` (sqlite3 of Debian 12 cannot) and put the new file in its place, or move the file aside, with {path}-wal and {path}-shm, to begin without guests."
                )
            }
            Self::Foreign { path } => format!(
                "Point Innkeeper's state directory at a directory of its own, or move {} aside.",
                path.display()
            ),
            Self::TooNew { .. } => {
                "Start the newer Innkeeper that wrote it, or restore a backup from before its installation.".to_owned()
            }
            Self::DiskFull { path, .. } => format!(
                "Free space on the disk that holds {} (`agent list` shows guests that you may destroy), then try again.",
                path.display()
            ),
            Self::PermissionDenied { path, .. } => format!(
                "Allow innkeeperd to write {} and its directory; it normally runs as root.",
                path.display()
            ),
            Self::Locked { path, .. } => format!(
                "Stop the other program (`fuser {}` shows it), then try again.",
                path.display()
            ),
            Self::Failed { .. } | Self::Closed => return None,
        })
    }
}

/// An error inside a transaction, without the action and the file.
#[derive(Debug)]
pub(crate) enum QueryError {
    /// An error that names its object already.
    Store(StoreError),
    /// An error of SQLite.
    Sqlite(rusqlite::Error),
}

impl QueryError {
    /// Adds the action and the file.
    pub(crate) fn explain(self, action: &'static str, path: &Path) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Sqlite(source) => StoreError::from_sqlite(action, path, source),
        }
    }
}

impl From<StoreError> for QueryError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<rusqlite::Error> for QueryError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}
