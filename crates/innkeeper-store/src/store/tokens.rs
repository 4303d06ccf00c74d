//! Tokens of other machines.

use innkeeper_model::access::{Role, TokenId, TokenKind, TokenName};
use innkeeper_model::preview::RepoName;
use jiff::{SignedDuration, Timestamp};

use super::Store;
use crate::database::Durability;
use crate::error::StoreError;
use crate::sql::tokens::{self, NewToken, StoredPerson, StoredToken};

/// The maximum number of a person's sessions of one kind. A further one ends the oldest.
const MAX_SESSIONS: u32 = 20;

/// The time for which sessions that have ended stay in the list of tokens.
const SESSIONS_KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);

/// A session to be recorded.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// The name, among those of all tokens.
    pub name: TokenName,
    /// The person's rights.
    pub role: Role,
    /// The person, with the groups of this login.
    pub person: StoredPerson,
    /// The kind of the session.
    pub kind: TokenKind,
    /// The time from which it is invalid.
    pub expires_at: Timestamp,
}

impl Store {
    /// Records a token. `digest` returns the SHA-256 of the text of the token with a number. Durable.
    ///
    /// # Errors
    /// [`StoreError::TokenExists`] when a token that is not revoked has the name.
    pub async fn create_token(
        &self,
        new: NewToken,
        digest: impl FnOnce(TokenId) -> [u8; 32] + Send + 'static,
    ) -> Result<StoredToken, StoreError> {
        self.insert("record a token", move |transaction| {
            if tokens::has(transaction, &new.name)? {
                return Err(StoreError::TokenExists { name: new.name }.into());
            }
            let id = tokens::next_id(transaction)?;
            tokens::insert(transaction, id, digest(id), &new)
        })
        .await
    }

    /// Records a person who has logged in, and their new session. `digest` is that of [`Store::create_token`]. Ends the
    /// person's oldest session if there are too many, and deletes those of all people that ended a month ago. Durable.
    ///
    /// # Errors
    /// [`StoreError::TokenExists`] when a token that is not revoked has the session's name.
    pub async fn create_session(
        &self,
        session: NewSession,
        digest: impl FnOnce(TokenId) -> [u8; 32] + Send + 'static,
    ) -> Result<StoredToken, StoreError> {
        self.insert("record a session", move |transaction| {
            let NewSession {
                name,
                role,
                person,
                kind,
                expires_at,
            } = session;
            if tokens::has(transaction, &name)? {
                return Err(StoreError::TokenExists { name }.into());
            }
            let id = person.person.id;
            tokens::put_person(transaction, &person)?;
            tokens::revoke_oldest_sessions(transaction, id, kind, MAX_SESSIONS - 1)?;
            let new = NewToken {
                name,
                role,
                repo: None,
                created_by: id.to_string(),
                expires_at: Some(expires_at),
                session: Some((kind, id)),
            };
            let number = tokens::next_id(transaction)?;
            let created = tokens::insert(transaction, number, digest(number), &new)?;
            let before = Timestamp::now() - SESSIONS_KEPT;
            tokens::delete_old_sessions(transaction, before)?;
            Ok(created)
        })
        .await
    }

    /// Returns all people who have logged in.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn persons(&self) -> Result<Vec<StoredPerson>, StoreError> {
        self.read("read the people", tokens::persons).await
    }

    /// Returns the present name of the only repository whose previews a token may use: it follows renames. `None` for a token
    /// of the whole host.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn token_repo(&self, id: TokenId) -> Result<Option<RepoName>, StoreError> {
        self.read("read a token", move |connection| {
            tokens::repo_of(connection, id)
        })
        .await
    }

    /// Revokes the token with a name, which another token may have from then on. Durable.
    ///
    /// # Errors
    /// [`StoreError::TokenNotFound`].
    pub async fn revoke_token(&self, name: &TokenName) -> Result<StoredToken, StoreError> {
        let name = name.clone();
        self.write("revoke a token", Durability::Now, move |transaction| {
            tokens::revoke(transaction, &name)
        })
        .await
    }

    /// Records the time of a token's last use. Durable soon. Has no effect on a revoked one.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn set_token_use(&self, id: TokenId, time: Timestamp) -> Result<(), StoreError> {
        let action = "record the use of a token";
        self.write(action, Durability::Soon, move |transaction| {
            tokens::set_last_use(transaction, id, time)
        })
        .await
    }

    /// Returns all tokens, also revoked ones, in ascending order of their numbers.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn tokens(&self) -> Result<Vec<StoredToken>, StoreError> {
        self.read("read the tokens", tokens::list).await
    }
}
