//! Files that are written into running guests.

use async_trait::async_trait;
use innkeeper_model::Guest;

use crate::error::FacilityError;

/// A file for a guest.
#[derive(Clone)]
pub struct GuestFile {
    /// The path inside the guest, such as `/etc/preview.env`.
    pub path: &'static str,
    /// The contents; `None` removes the file.
    pub contents: Option<Vec<u8>>,
    /// The guest's group that may read it, besides root.
    pub group: u32,
}

/// Writes files into guests' trees, while they run or not.
#[async_trait]
pub trait GuestFiles: Send + Sync {
    /// Writes files that belong to the guest's root and are readable by their groups (mode 0640), and removes those
    /// without contents. A reader sees the former file or the new one.
    ///
    /// # Errors
    /// When the tree does not exist, or a file cannot be written. The files before it are written then.
    async fn write(&self, guest: &Guest, files: Vec<GuestFile>) -> Result<(), FacilityError>;
}
