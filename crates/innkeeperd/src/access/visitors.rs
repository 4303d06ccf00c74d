//! The list of previews that are not public, which `innkeeper-gateway` reads.

use std::path::Path;

use async_trait::async_trait;
use innkeeper_facilities::{AccessList, FacilityError};
use innkeeper_model::access::{ACCESS_FILE, AccessFile};

use super::PublishedFile;
use crate::error::DaemonError;

/// Writes the list for the gateway, if it is enabled.
#[derive(Clone, Debug)]
pub(crate) struct PublishedVisitors {
    file: PublishedFile,
    is_enabled: bool,
}

impl PublishedVisitors {
    /// Creates the publisher of a daemon with this `runtime_dir`, for a group.
    pub(crate) fn new(runtime_dir: &Path, group: &str, is_enabled: bool) -> Self {
        Self {
            file: PublishedFile::new(runtime_dir.join(ACCESS_FILE), group),
            is_enabled,
        }
    }
}

#[async_trait]
impl AccessList for PublishedVisitors {
    async fn publish(&self, list: &AccessFile) -> Result<(), FacilityError> {
        // A small file in memory, like that of the tokens.
        let done = match self.is_enabled {
            true => self.file.publish(list),
            false => self.file.withdraw(),
        };
        done.map_err(|error| FacilityError::new(DaemonError::from(error)))
    }
}
