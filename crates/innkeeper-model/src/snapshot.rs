//! Snapshots of guests' files.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Code, Explain, GuestName, RetainedId};

/// The label of a snapshot: 1 to 32 characters out of `a-z`, `0-9` and `-`, which neither starts nor ends with `-`.
///
/// It is part of paths and, after the guest's name and a dot, of the names of volumes, which have at most 127 characters
/// (lvm(8), "VALID NAMES").
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotLabel(String);

/// The text is not a [`SnapshotLabel`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{}' is not a valid snapshot label; use 1 to {max} of a-z, 0-9 and '-', without '-' at either end",
    .0.escape_debug(),
    max = SnapshotLabel::MAX_LENGTH
)]
pub struct InvalidLabel(String);

impl Explain for InvalidLabel {
    fn code(&self) -> Code {
        Code::InvalidName
    }

    fn remedy(&self) -> Option<String> {
        Some(
            "Choose a label such as 'before-upgrade', or omit it to generate one from the time."
                .to_owned(),
        )
    }
}

impl SnapshotLabel {
    /// Maximum length in characters.
    pub const MAX_LENGTH: usize = 32;

    /// Parses a label.
    ///
    /// # Errors
    /// [`InvalidLabel`].
    pub fn parse(text: &str) -> Result<Self, InvalidLabel> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let good = (1..=Self::MAX_LENGTH).contains(&text.len())
            && text.bytes().all(allowed)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidLabel(text.to_owned()))
        }
    }

    /// Generates a label from a time, to the second and in UTC, such as `20261121-063005`. From the second `attempt` on,
    /// its number is appended.
    #[must_use]
    pub fn of_time(time: Timestamp, attempt: usize) -> Self {
        let text = time.strftime("%Y%m%d-%H%M%S");
        Self(match attempt {
            0 | 1 => text.to_string(),
            _ => format!("{text}-{attempt}"),
        })
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SnapshotLabel {
    type Err = InvalidLabel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for SnapshotLabel {
    type Error = InvalidLabel;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<SnapshotLabel> for String {
    fn from(label: SnapshotLabel) -> Self {
        label.0
    }
}

impl fmt::Display for SnapshotLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A snapshot of a guest's files. It belongs to the guest and is deleted with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Snapshot {
    /// The guest.
    pub guest: GuestName,
    /// Its label, unique among the guest's snapshots.
    pub label: SnapshotLabel,
    /// Time at which it was taken.
    pub created_at: Timestamp,
}

/// The source of a copied guest's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Origin {
    /// The copied guest.
    pub guest: GuestName,
    /// The copied snapshot; the current files if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotLabel>,
}

/// Work on a guest's files that precedes all other steps. It is part of the guest's record from the request until it is
/// done, so that a crash neither loses nor repeats it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum FileWork {
    /// Copies the files of another guest.
    CopyOf(Origin),
    /// Takes a snapshot.
    TakeSnapshot(SnapshotLabel),
    /// Deletes a snapshot.
    DeleteSnapshot(SnapshotLabel),
    /// Restores the files from a snapshot.
    Restore(SnapshotLabel),
    /// Takes over retained files.
    Adopt(RetainedId),
}

impl fmt::Display for FileWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CopyOf(origin) => write!(f, "copying guest '{}'", origin.guest),
            Self::TakeSnapshot(label) => write!(f, "taking the snapshot '{label}'"),
            Self::DeleteSnapshot(label) => write!(f, "deleting the snapshot '{label}'"),
            Self::Restore(label) => write!(f, "restoring the snapshot '{label}'"),
            Self::Adopt(id) => write!(f, "taking over the retained files {id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshot_label_is_valid_in_paths_and_volumes() {
        for good in ["a", "0", "before-upgrade", &"x".repeat(32)] {
            assert_eq!(SnapshotLabel::parse(good).expect(good).as_str(), good);
        }
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a.b",
            "a/b",
            "..",
            "ä",
            &"x".repeat(33),
        ] {
            assert!(SnapshotLabel::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn snapshot_label_is_generated_from_the_time() {
        let time: Timestamp = "2026-11-21T06:30:05.25Z".parse().expect("a time");
        for (attempt, text) in [(1, "20261121-063005"), (2, "20261121-063005-2")] {
            let label = SnapshotLabel::of_time(time, attempt);
            assert_eq!(label.as_str(), text);
            assert_eq!(SnapshotLabel::parse(text), Ok(label));
        }
    }
}
