//! Tokens of other machines.

use innkeeper_model::access::{TokenId, TokenName};
use jiff::Timestamp;

use super::Store;
use crate::database::Durability;
use crate::error::StoreError;
use crate::sql::tokens::{self, NewToken, StoredToken};

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
