//! Files of destroyed agents, which are kept for a while.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{ClosureSource, GuestName, Limits, StorePath};

/// The number of one destroyed agent's files. It is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RetainedId(pub i64);

impl fmt::Display for RetainedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RetainedId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// A destroyed agent whose files are kept: what is needed to create it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retained {
    /// The number of the files.
    pub id: RetainedId,
    /// What the agent was called. Another guest may have the name by now.
    pub name: GuestName,
    /// Where its closure came from.
    pub source: ClosureSource,
    /// The closure, if it was known. Nothing keeps it from Nix's garbage collection.
    pub closure: Option<StorePath>,
    /// What it could use.
    pub limits: Limits,
    /// When the agent was created.
    pub created_at: Timestamp,
    /// When it was destroyed.
    pub destroyed_at: Timestamp,
    /// How much space the files take, once that was measured.
    pub bytes: Option<u64>,
    /// Whether the files are being removed and cannot be brought back.
    pub removing: bool,
}
