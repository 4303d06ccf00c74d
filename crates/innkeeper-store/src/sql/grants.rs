//! Table `preview_grants`.

use innkeeper_model::GuestName;
use innkeeper_model::access::{GrantId, GrantKind, GrantRecord};
use jiff::Timestamp;
use rusqlite::{Connection, Row, Transaction, named_params};

use crate::codec::{Columns, Text, Time};
use crate::error::{QueryError, StoreError};
use crate::sql;

/// A grant to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewGrant {
    /// The preview.
    pub slug: GuestName,
    /// The use.
    pub kind: GrantKind,
    /// The actor that creates it.
    pub created_by: String,
    /// The time from which it is invalid.
    pub expires_at: Timestamp,
}

/// A grant with the digest of its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredGrant {
    /// The preview.
    pub slug: GuestName,
    /// The record.
    pub record: GrantRecord,
    /// SHA-256 of the grant's text.
    pub digest: [u8; 32],
}

/// Returns all grants, also expired ones, in ascending order of their numbers.
pub(crate) fn list(connection: &Connection) -> Result<Vec<StoredGrant>, QueryError> {
    let query = "SELECT * FROM preview_grants ORDER BY id";
    sql::all(connection, query, (), read)
}

/// Inserts a grant with the digest of its text, which contains its number.
pub(crate) fn insert(
    transaction: &Transaction<'_>,
    new: &NewGrant,
    digest: impl FnOnce(GrantId) -> [u8; 32],
) -> Result<StoredGrant, QueryError> {
    let id: i64 = sql::one(
        transaction,
        "INSERT INTO preview_grants (slug, kind, digest, created_by, created_at, expires_at)
         VALUES (:slug, :kind, zeroblob(32), :created_by, :created_at, :expires_at)
         RETURNING id",
        named_params! {
            ":slug": Text(&new.slug),
            ":kind": Text(new.kind),
            ":created_by": new.created_by,
            ":created_at": Time::now(),
            ":expires_at": Time(new.expires_at),
        },
        |row| row.get(0),
    )?;
    let update = "UPDATE preview_grants SET digest = ?2 WHERE id = ?1 RETURNING *";
    sql::one(transaction, update, (id, digest(GrantId(id))), read)
}

/// Deletes the grants of all previews that expired before a time.
pub(crate) fn delete_expired(
    transaction: &Transaction<'_>,
    before: Timestamp,
) -> Result<(), QueryError> {
    let delete = "DELETE FROM preview_grants WHERE expires_at < ?1";
    sql::execute(transaction, delete, [Time(before)])?;
    Ok(())
}

/// Deletes a grant of a preview and returns it, or fails with [`StoreError::GrantNotFound`].
pub(crate) fn delete(
    transaction: &Transaction<'_>,
    slug: &GuestName,
    id: GrantId,
) -> Result<StoredGrant, QueryError> {
    let delete = "DELETE FROM preview_grants WHERE slug = ?1 AND id = ?2 RETURNING *";
    let deleted = sql::first(transaction, delete, (Text(slug), id.0), read)?;
    deleted.ok_or_else(|| {
        let slug = slug.clone();
        StoreError::GrantNotFound { slug, id }.into()
    })
}

fn read(row: &Row<'_>) -> rusqlite::Result<StoredGrant> {
    Ok(StoredGrant {
        slug: row.text("slug")?,
        digest: row.get("digest")?,
        record: GrantRecord {
            id: GrantId(row.get("id")?),
            kind: row.text("kind")?,
            created_by: row.get("created_by")?,
            created_at: row.time("created_at")?,
            expires_at: row.time("expires_at")?,
        },
    })
}
