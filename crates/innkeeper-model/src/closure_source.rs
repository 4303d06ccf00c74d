//! Sources of closures.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Installable, StorePath};

/// The source of a guest's closure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ClosureSource {
    /// A flake output, built unless it is cached.
    Flake(Installable),
    /// A flake output requested by a member, fetched and evaluated without the daemon's permissions.
    MemberFlake(Installable),
    /// An existing store path.
    Path(StorePath),
}

impl fmt::Display for ClosureSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flake(installable) | Self::MemberFlake(installable) => installable.fmt(f),
            Self::Path(path) => path.fmt(f),
        }
    }
}
