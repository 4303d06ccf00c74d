//! Snapshots of guests' files.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Code, Explain, GuestName, RetainedId};

/// What a guest's snapshot is called: 1 to 32 characters out of `a-z`, `0-9` and `-`, which neither starts nor
/// ends with `-`.
///
/// It stands in paths and, after the guest's name and a dot, in the names of volumes, which have at most 127
/// characters (lvm(8), "VALID NAMES").
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotLabel(String);

/// A text that is no [`SnapshotLabel`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{}' is no label for a snapshot; 1 to {max} of a-z, 0-9 and '-' are, without '-' at either end",
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
            "Choose one such as 'before-upgrade'; one is made up from the time when none is given."
                .to_owned(),
        )
    }
}

impl SnapshotLabel {
    /// The most characters of a label.
    pub const MAX_LENGTH: usize = 32;

    /// Parses a label.
    ///
    /// # Errors
    /// When the text is none.
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

    /// A label made up from a time, to the second and in UTC, such as `20261121-063005`; from the second `attempt`
    /// on with its number behind it.
    #[must_use]
    pub fn of_time(time: Timestamp, attempt: usize) -> Self {
        let text = time.strftime("%Y%m%d-%H%M%S");
        Self(match attempt {
            0 | 1 => text.to_string(),
            _ => format!("{text}-{attempt}"),
        })
    }

    /// The label as text.
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

/// A guest's files as they were once. It belongs to the guest and goes with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Whose files.
    pub guest: GuestName,
    /// What it is called; each of a guest's snapshots has another label.
    pub label: SnapshotLabel,
    /// When it was taken.
    pub created_at: Timestamp,
}

/// Where the files of a copied guest come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Whose files.
    pub guest: GuestName,
    /// As they were in this snapshot, or as they are now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotLabel>,
}

/// What is to be done with a guest's files before anything else. It is part of the guest's record from the intent
/// until it is done, so that a crash does not make it be forgotten or be done twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileWork {
    /// They begin as a copy.
    CopyOf(Origin),
    /// A snapshot is to be taken.
    TakeSnapshot(SnapshotLabel),
    /// A snapshot is to be deleted.
    DeleteSnapshot(SnapshotLabel),
    /// They are to be as in this snapshot.
    Restore(SnapshotLabel),
    /// They are those of a destroyed agent.
    Adopt(RetainedId),
}

impl fmt::Display for FileWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CopyOf(origin) => write!(f, "copying guest '{}'", origin.guest),
            Self::TakeSnapshot(label) => write!(f, "taking the snapshot '{label}'"),
            Self::DeleteSnapshot(label) => write!(f, "deleting the snapshot '{label}'"),
            Self::Restore(label) => write!(f, "restoring the snapshot '{label}'"),
            Self::Adopt(id) => write!(f, "taking over the files {id} of a destroyed agent"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_can_stand_in_paths_and_names_of_volumes() {
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
    fn labels_that_are_made_up_are_labels() {
        let time: Timestamp = "2026-11-21T06:30:05.25Z".parse().expect("a time");
        for (attempt, text) in [(1, "20261121-063005"), (2, "20261121-063005-2")] {
            let label = SnapshotLabel::of_time(time, attempt);
            assert_eq!(label.as_str(), text);
            assert_eq!(SnapshotLabel::parse(text), Ok(label));
        }
    }
}
