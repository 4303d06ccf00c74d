//! Databases of previews on the host's PostgreSQL.

use std::sync::Arc;

use innkeeper_facilities::{DatabaseAccess, DatabaseSpec, Databases};
use innkeeper_model::{Code, Failure, GuestName};

use crate::PreviewError;

/// Databases of previews, if the host has a server for them.
#[derive(Clone)]
pub(crate) struct PreviewDatabases {
    server: Option<Arc<dyn Databases>>,
    template: Option<String>,
}

impl PreviewDatabases {
    pub(crate) fn new(server: Option<Arc<dyn Databases>>, template: Option<String>) -> Self {
        Self { server, template }
    }

    /// Creates the preview's database unless it exists.
    ///
    /// # Errors
    /// The host has no server, or the server refuses.
    pub(crate) async fn ensure(&self, slug: &GuestName) -> Result<DatabaseAccess, PreviewError> {
        Ok(self.server()?.ensure(&self.spec(slug)).await?)
    }

    /// Drops the preview's database and creates it again.
    ///
    /// # Errors
    /// As for [`Self::ensure`].
    pub(crate) async fn reset(&self, slug: &GuestName) -> Result<(), PreviewError> {
        self.server()?.reset(&self.spec(slug)).await?;
        Ok(())
    }

    /// Drops the preview's database. Does nothing on a host without a server.
    ///
    /// # Errors
    /// The server refuses.
    pub(crate) async fn remove(&self, slug: &GuestName) -> Result<(), PreviewError> {
        if let Some(server) = &self.server {
            server.remove(slug).await?;
        }
        Ok(())
    }

    /// Returns the server.
    ///
    /// # Errors
    /// The host has none.
    pub(crate) fn server(&self) -> Result<&dyn Databases, PreviewError> {
        self.server.as_deref().ok_or_else(|| {
            Failure::new(
                Code::InvalidConfig,
                "this host has no PostgreSQL for previews",
            )
            .with_remedy(
                "Set database.socket_dir in innkeeperd's configuration; docs/previews-host.md describes how.",
            )
            .into()
        })
    }

    fn spec(&self, slug: &GuestName) -> DatabaseSpec {
        DatabaseSpec {
            slug: slug.clone(),
            template: self.template.clone(),
        }
    }
}
