//! Retained files of destroyed agents.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{ClosureSource, GuestName, Limits, StorePath};

/// The number of an agent's retained files. Numbers are not reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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

/// A destroyed agent with retained files: the data for creating it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Retained {
    /// The number of the files.
    pub id: RetainedId,
    /// The agent's name. Another guest may have it by now.
    pub name: GuestName,
    /// The source of its closure.
    pub source: ClosureSource,
    /// The closure, if it was known. Nix may garbage-collect it.
    pub closure: Option<StorePath>,
    /// Its resource limits.
    pub limits: Limits,
    /// Time of the agent's creation.
    pub created_at: Timestamp,
    /// Time of its destruction.
    pub destroyed_at: Timestamp,
    /// Size of the files, once measured.
    pub bytes: Option<u64>,
    /// True if the files are being removed and cannot be restored.
    pub removing: bool,
}
