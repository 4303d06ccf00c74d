//! Status files of previews, for the program that shows them to visitors.

use async_trait::async_trait;
use innkeeper_model::GuestName;
use innkeeper_model::preview::page::PageStatus;

use crate::error::FacilityError;
use crate::resource::Resource;

/// The status files of previews. They stay readable while the daemon is down.
#[async_trait]
pub trait Pages: Resource {
    /// Replaces a preview's status atomically. `durable` makes it survive a power loss.
    ///
    /// # Errors
    /// When the file cannot be written.
    async fn write(&self, status: PageStatus, durable: bool) -> Result<(), FacilityError>;

    /// Returns a preview's status. `None` if it has none, or one of another version of the program.
    ///
    /// # Errors
    /// When the file cannot be read.
    async fn read(&self, preview: &GuestName) -> Result<Option<PageStatus>, FacilityError>;
}
