//! The use of the storage of guests' files.

use serde::{Deserialize, Serialize};

use super::RetainedSpace;
use crate::{GuestName, SnapshotLabel};

/// The storage of the guests' files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolReport {
    /// `dir` or `lvm-thin`.
    pub driver: String,
    /// The directory of the file trees, or volume group and thin pool.
    pub place: String,
    /// Total size, in bytes.
    pub size_bytes: u64,
    /// Usage in percent.
    pub data_percent: f64,
    /// Usage of a pool's metadata, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata_percent: Option<f64>,
    /// Usage of data or metadata, in percent, above which no volume is added to a pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_percent: Option<u8>,
    /// Bytes that must be free to add a file tree to a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_free_bytes: Option<u64>,
    /// The share of retained files. They are evicted when space is needed.
    #[serde(default)]
    pub retained: RetainedSpace,
    /// The remedy, when the storage is full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The volumes in a pool.
    pub volumes: Vec<PoolVolume>,
}

/// A volume in a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolVolume {
    /// Its name.
    pub name: String,
    /// The guest that owns it.
    pub guest: Option<GuestName>,
    /// The label, if it is a snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotLabel>,
    /// Its virtual size, in bytes.
    pub size_bytes: u64,
    /// Mapped share of its size in percent, including shared blocks; `None` while it is inactive.
    pub data_percent: Option<f64>,
}
