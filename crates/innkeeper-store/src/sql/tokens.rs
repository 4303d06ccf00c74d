//! Table `tokens`.

use innkeeper_model::access::{
    Groups, Login, Person, PersonId, Role, TokenId, TokenKind, TokenName, TokenRecord,
};
use innkeeper_model::preview::RepoName;
use jiff::Timestamp;
use rusqlite::{Connection, Row, Transaction, named_params};

use crate::codec::{Columns, Json, Number, Text, Time};
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
    /// The kind of a session, and its person.
    pub session: Option<(TokenKind, PersonId)>,
}

/// A person with the groups that the configuration named at the last login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPerson {
    /// The person.
    pub person: Person,
    /// The groups.
    pub groups: Groups,
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
    let query = "SELECT tokens.*, persons.login FROM tokens
         LEFT JOIN persons ON persons.id = tokens.person ORDER BY tokens.id";
    sql::all(connection, query, (), read)
}

/// Returns the number of the next token.
pub(crate) fn next_id(connection: &Connection) -> Result<TokenId, QueryError> {
    // The row with the highest number is never deleted.
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
    let (kind, person) = new.session.unzip();
    sql::execute(
        transaction,
        "INSERT INTO tokens
             (id, name, digest, role, repo, repo_id, created_by, created_at, expires_at, kind, person)
         VALUES (:id, :name, :digest, :role, :repo, (SELECT id FROM repositories WHERE name = :repo),
             :created_by, :created_at, :expires_at, :kind, :person)",
        named_params! {
            ":id": id.0,
            ":name": new.name.as_str(),
            ":digest": digest,
            ":role": Text(new.role),
            ":repo": new.repo.as_ref().map(Text),
            ":created_by": new.created_by,
            ":created_at": Time::now(),
            ":expires_at": new.expires_at.map(Time),
            ":kind": Text(kind.unwrap_or_default()),
            ":person": person.map(|PersonId(id)| Number(id)),
        },
    )?;
    get(transaction, id)
}

fn get(connection: &Connection, id: TokenId) -> Result<StoredToken, QueryError> {
    let query = "SELECT tokens.*, persons.login FROM tokens
         LEFT JOIN persons ON persons.id = tokens.person WHERE tokens.id = ?1";
    sql::one(connection, query, [id.0], read)
}

/// Returns the present name of the only repository whose previews a token may use.
pub(crate) fn repo_of(
    connection: &Connection,
    id: TokenId,
) -> Result<Option<RepoName>, QueryError> {
    let query = "SELECT repo FROM tokens WHERE id = ?1";
    Ok(sql::first(connection, query, [id.0], |row| row.opt_text("repo"))?.flatten())
}

/// Records the number of the repository with a name for the tokens that are for a repository of this name and do not have it.
pub(crate) fn adopt_repo(
    transaction: &Transaction<'_>,
    repo: u64,
    name: &RepoName,
) -> Result<(), QueryError> {
    let update = "UPDATE tokens SET repo_id = ?1
         WHERE repo = ?2 AND repo_id IS NULL AND revoked_at IS NULL";
    sql::execute(transaction, update, (Number(repo), Text(name)))?;
    Ok(())
}

/// Records the new name of a repository with its tokens. Revoked ones keep the former one.
pub(crate) fn rename_repo(
    transaction: &Transaction<'_>,
    repo: u64,
    now: &RepoName,
) -> Result<(), QueryError> {
    let update = "UPDATE tokens SET repo = ?2 WHERE repo_id = ?1 AND revoked_at IS NULL";
    sql::execute(transaction, update, (Number(repo), Text(now)))?;
    Ok(())
}

/// Revokes a token and returns it, or fails with [`StoreError::TokenNotFound`].
pub(crate) fn revoke(
    transaction: &Transaction<'_>,
    name: &TokenName,
) -> Result<StoredToken, QueryError> {
    let update =
        "UPDATE tokens SET revoked_at = ?2 WHERE name = ?1 AND revoked_at IS NULL RETURNING id";
    let id = |row: &Row<'_>| row.get(0).map(TokenId);
    match sql::first(transaction, update, (name.as_str(), Time::now()), id)? {
        Some(id) => get(transaction, id),
        None => Err(StoreError::TokenNotFound { name: name.clone() }.into()),
    }
}

/// Records a person, in place of what was recorded at an earlier login.
pub(crate) fn put_person(
    transaction: &Transaction<'_>,
    stored: &StoredPerson,
) -> Result<(), QueryError> {
    let StoredPerson { person, groups } = stored;
    sql::execute(
        transaction,
        "INSERT INTO persons (id, login, groups) VALUES (?1, ?2, ?3)
         ON CONFLICT (id) DO UPDATE SET login = excluded.login, groups = excluded.groups",
        (Number(person.id.0), person.login.as_str(), Json(groups)),
    )?;
    Ok(())
}

/// Returns all people.
pub(crate) fn persons(connection: &Connection) -> Result<Vec<StoredPerson>, QueryError> {
    sql::all(connection, "SELECT * FROM persons ORDER BY id", (), |row| {
        Ok(StoredPerson {
            person: Person {
                id: PersonId(row.get::<_, Number>("id")?.0),
                login: row.text("login")?,
            },
            groups: row.get::<_, Json<Groups>>("groups")?.0,
        })
    })
}

/// Revokes the oldest sessions of a person of one kind, all but the newest `kept`.
pub(crate) fn revoke_oldest_sessions(
    transaction: &Transaction<'_>,
    person: PersonId,
    kind: TokenKind,
    kept: u32,
) -> Result<(), QueryError> {
    sql::execute(
        transaction,
        "UPDATE tokens SET revoked_at = ?4 WHERE revoked_at IS NULL AND id IN (
             SELECT id FROM tokens WHERE person = ?1 AND kind = ?2 AND revoked_at IS NULL
             ORDER BY id DESC LIMIT -1 OFFSET ?3)",
        (Number(person.0), Text(kind), kept, Time::now()),
    )?;
    Ok(())
}

/// Deletes sessions that ended before a time. The highest number stays, so that it is never used again.
pub(crate) fn delete_old_sessions(
    transaction: &Transaction<'_>,
    before: Timestamp,
) -> Result<(), QueryError> {
    sql::execute(
        transaction,
        "DELETE FROM tokens WHERE kind <> 'token' AND (revoked_at < ?1 OR expires_at < ?1)
             AND id < (SELECT max(id) FROM tokens)",
        [Time(before)],
    )?;
    Ok(())
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
    let person: Option<Number> = row.get("person")?;
    let login: Option<Login> = row.opt_text("login")?;
    Ok(StoredToken {
        digest: row.get("digest")?,
        record: TokenRecord {
            id: TokenId(row.get("id")?),
            name: row.text("name")?,
            kind: row.text("kind")?,
            person: person.zip(login).map(|(Number(id), login)| Person {
                id: PersonId(id),
                login,
            }),
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
