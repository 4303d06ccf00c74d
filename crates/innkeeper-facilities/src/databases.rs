//! Databases of previews.

use std::net::Ipv4Addr;
use std::path::Path;

use async_trait::async_trait;
use innkeeper_model::{GuestName, Secret};

use crate::error::FacilityError;
use crate::resource::Resource;

/// The desired database of a preview.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseSpec {
    /// The preview.
    pub slug: GuestName,
    /// The database that a new one is copied from; `None` for an empty one in UTF-8. The preview owns the copy and
    /// reads everything in it, so the name comes from the host's configuration and never from a repository.
    pub template: Option<String>,
}

/// The credentials that a guest needs to use its database.
#[derive(Clone, Debug)]
pub struct DatabaseAccess {
    /// The database's name.
    pub name: String,
    /// The role's name.
    pub role: String,
    /// The role's password: 24 letters and digits.
    pub password: Secret,
    /// Identifies the database: another one after a reset, or after a removal and a new creation.
    pub id: String,
}

impl DatabaseAccess {
    /// Returns the value of `DATABASE_URL`, `postgresql://<role>:<password>@<host>:<port>/<name>`. No part of it needs
    /// to be escaped.
    #[must_use]
    pub fn url(&self, host: Ipv4Addr, port: u16) -> Secret {
        let Self {
            name,
            role,
            password,
            ..
        } = self;
        let password = password.expose();
        Secret::new(format!(
            "postgresql://{role}:{password}@{host}:{port}/{name}"
        ))
    }
}

/// Databases of previews on the host's PostgreSQL.
#[async_trait]
pub trait Databases: Resource {
    /// Gives the preview a database and a role that can reach no other database. An existing database keeps its
    /// contents and its password.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached or refuses, or an object that is not managed by Innkeeper has the name.
    async fn ensure(&self, spec: &DatabaseSpec) -> Result<DatabaseAccess, FacilityError>;

    /// Marks the preview's role and database if a former release created them without a mark.
    ///
    /// # Errors
    /// As [`Self::ensure`].
    async fn adopt(&self, preview: &GuestName) -> Result<(), FacilityError>;

    /// Returns the password of the preview's role, without a query of the server. `None` if the preview has no database.
    ///
    /// # Errors
    /// When the password's file cannot be read.
    async fn password(&self, preview: &GuestName) -> Result<Option<Secret>, FacilityError>;

    /// Returns the disk space of the preview's database, in bytes. `None` if the preview has no database.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached or refuses.
    async fn size(&self, preview: &GuestName) -> Result<Option<u64>, FacilityError>;

    /// Drops the preview's database with its contents and creates it again, with the same password. Ends all
    /// connections to it.
    ///
    /// # Errors
    /// As [`Self::ensure`].
    async fn reset(&self, spec: &DatabaseSpec) -> Result<DatabaseAccess, FacilityError>;

    /// Writes the contents of the preview's database to a new file, in the custom format of pg_dump(1).
    ///
    /// # Errors
    /// When the database does not exist, or the server or `pg_dump` refuses.
    async fn dump(&self, preview: &GuestName, to: &Path) -> Result<(), FacilityError>;

    /// Creates the preview's role with this password, and its database with the contents of a file that [`Self::dump`] has
    /// written. Replaces an existing database of the preview. The contents are loaded with the rights of the preview's role.
    ///
    /// # Errors
    /// As [`Self::ensure`], and when `pg_restore` refuses.
    async fn load(
        &self,
        preview: &GuestName,
        password: &Secret,
        from: &Path,
    ) -> Result<(), FacilityError>;
}
