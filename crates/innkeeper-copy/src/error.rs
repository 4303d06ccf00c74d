//! Errors of copies, and the exit status that conveys their reason.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The error that ended a copy. Its text contains the error of the operating system.
#[derive(Debug)]
pub enum CopyError {
    /// An operation on a file failed.
    File {
        /// The operation, as an infinitive such as `read`.
        action: &'static str,
        /// The file, as the user named it or the directory above it.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A file cannot be copied to its place, or not at all.
    Refused {
        /// The file.
        path: PathBuf,
        /// The cause, as the rest of a sentence that begins with the path.
        cause: &'static str,
    },
    /// The stream ended before the copy was complete.
    Interrupted,
    /// The stream cannot be written: the other side has ended.
    Gone(io::Error),
    /// The stream violates its format.
    Invalid(&'static str),
}

impl CopyError {
    pub(crate) fn file(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File {
            action,
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn refused(path: &Path, cause: &'static str) -> Self {
        Self::Refused {
            path: path.to_owned(),
            cause,
        }
    }

    /// Returns the reason.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::File { source, .. } => match source.kind() {
                ErrorKind::NotFound => Reason::Missing,
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Reason::Denied,
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Reason::Full,
                ErrorKind::NotADirectory => Reason::Refused,
                _ => Reason::Other,
            },
            Self::Refused { .. } => Reason::Refused,
            Self::Interrupted => Reason::Interrupted,
            Self::Gone(_) | Self::Invalid(_) => Reason::Other,
        }
    }
}

impl fmt::Display for CopyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File {
                action,
                path,
                source,
            } => {
                write!(f, "cannot {action} '{}': {source}", path.display())
            }
            Self::Refused { path, cause } => write!(f, "'{}' {cause}", path.display()),
            Self::Interrupted => f.write_str("the copy was interrupted"),
            Self::Gone(error) => write!(f, "the other side of the copy has ended: {error}"),
            Self::Invalid(problem) => {
                write!(f, "the other side of the copy sent invalid data: {problem}")
            }
        }
    }
}

impl Error for CopyError {}

/// The reason of an error, which a program's exit status conveys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A path does not exist.
    Missing,
    /// The user may not access a path.
    Denied,
    /// The disk or a quota is full.
    Full,
    /// A path is not of the kind that the copy needs.
    Refused,
    /// The stream ended early.
    Interrupted,
    /// Another one.
    Other,
}

impl Reason {
    const ALL: [Self; 6] = [
        Self::Missing,
        Self::Denied,
        Self::Full,
        Self::Refused,
        Self::Interrupted,
        Self::Other,
    ];

    /// Returns the exit status. It differs from those of shells and of signals.
    #[must_use]
    pub fn status(self) -> u8 {
        match self {
            Self::Other => 1,
            Self::Missing => 11,
            Self::Denied => 12,
            Self::Full => 13,
            Self::Refused => 14,
            Self::Interrupted => 15,
        }
    }

    /// Returns the reason with this exit status.
    #[must_use]
    pub fn of_status(status: i32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|reason| i32::from(reason.status()) == status)
    }
}
