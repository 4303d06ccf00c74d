//! Table `tokens`.

use innkeeper_model::access::{Role, TokenId, TokenName, TokenRecord};
use innkeeper_model::preview::RepoName;
use jiff::Timestamp;
use rusqlite::{Connection, Row, Transaction, named_params};

use crate::codec::{Columns, Text, Time};
use crate::error::{QueryError, StoreError};
use crate::sql;

/// A token to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// The name.
    pub name: TokenName,
    /// The rights.
    pub role: Role,
    /// The only repository whose previews it may use.
    pub repo: Option<RepoName>,
    /// The actor that creates it.
    pub created_by: String,
    /// The time from which it is invalid.
    pub expires_at: Option<Timestamp>,
}

/// A token with the digest of its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredToken {
    /// The record.
    pub record: TokenRecord,
    /// SHA-256 of the token's text.
    pub digest: [u8; 32],
}

/// Returns all tokens, also revoked ones, in ascending order of their numbers.
pub(crate) fn list(connection: &Connection) -> Result<Vec<StoredToken>, QueryError> {
    sql::all(connection, "SELECT * FROM tokens ORDER BY id", (), read)
}

/// Returns the number of the next token.
pub(crate) fn next_id(connection: &Connection) -> Result<TokenId, QueryError> {
    // No row is ever deleted.
    let query = "SELECT coalesce(max(id), 0) + 1 FROM tokens";
    sql::one(connection, query, (), |row| row.get(0).map(TokenId))
}

/// Reports whether a token that is not revoked has the name.
pub(crate) fn has(connection: &Connection, name: &TokenName) -> Result<bool, QueryError> {
    let query = "SELECT 1 FROM tokens WHERE name = ?1 AND revoked_at IS NULL";
    sql::exists(connection, query, [name.as_str()])
}

/// Inserts a token.
pub(crate) fn insert(
    transaction: &Transaction<'_>,
    id: TokenId,
    digest: [u8; 32],
    new: &NewToken,
) -> Result<StoredToken, QueryError> {
    sql::one(
        transaction,
        "INSERT INTO tokens (id, name, digest, role, repo, created_by, created_at, expires_at)
         VALUES (:id, :name, :digest, :role, :repo, :created_by, :created_at, :expires_at)
         RETURNING *",
        named_params! {
            ":id": id.0,
            ":name": new.name.as_str(),
            ":digest": digest,
            ":role": Text(new.role),
            ":repo": new.repo.as_ref().map(Text),
            ":created_by": new.created_by,
            ":created_at": Time::now(),
            ":expires_at": new.expires_at.map(Time),
        },
        read,
    )
}

/// Revokes a token and returns it, or fails with [`StoreError::TokenNotFound`].
pub(crate) fn revoke(
    transaction: &Transaction<'_>,
    name: &TokenName,
) -> Result<StoredToken, QueryError> {
    let update =
        "UPDATE tokens SET revoked_at = ?2 WHERE name = ?1 AND revoked_at IS NULL RETURNING *";
    let revoked = sql::first(transaction, update, (name.as_str(), Time::now()), read)?;
    revoked.ok_or_else(|| StoreError::TokenNotFound { name: name.clone() }.into())
}

/// Records the last use of a token. A revoked one stays as it is.
pub(crate) fn set_last_use(
    transaction: &Transaction<'_>,
    id: TokenId,
    time: Timestamp,
) -> Result<(), QueryError> {
    let update = "UPDATE tokens SET last_used_at = ?2 WHERE id = ?1 AND revoked_at IS NULL";
    sql::execute(transaction, update, (id.0, Time(time)))?;
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<StoredToken> {
    Ok(StoredToken {
        digest: row.get("digest")?,
        record: TokenRecord {
            id: TokenId(row.get("id")?),
            name: row.text("name")?,
            role: row.text("role")?,
            repo: row.opt_text("repo")?,
            created_by: row.get("created_by")?,
            created_at: row.time("created_at")?,
            expires_at: row.opt_time("expires_at")?,
            last_used_at: row.opt_time("last_used_at")?,
            revoked_at: row.opt_time("revoked_at")?,
        },
    })
}
