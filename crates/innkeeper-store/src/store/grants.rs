//! Share links and tokens of previews.

use innkeeper_model::GuestName;
use innkeeper_model::access::GrantId;
use jiff::{SignedDuration, Timestamp};

use super::Store;
use crate::database::Durability;
use crate::error::StoreError;
use crate::sql::grants::{self, NewGrant, StoredGrant};
use crate::sql::previews;

/// The time for which expired grants stay, in case that the wall clock was wrong.
const EXPIRED_KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);

impl Store {
    /// Records a grant of a preview. `digest` returns the SHA-256 of the text of the grant with a number. Deletes those of all
    /// previews that expired a week ago. Durable.
    ///
    /// # Errors
    /// [`StoreError::PreviewNotFound`].
    pub async fn create_grant(
        &self,
        new: NewGrant,
        digest: impl FnOnce(GrantId) -> [u8; 32] + Send + 'static,
    ) -> Result<StoredGrant, StoreError> {
        self.insert("record a grant", move |transaction| {
            previews::require(transaction, &new.slug)?;
            grants::delete_expired(transaction, Timestamp::now() - EXPIRED_KEPT)?;
            grants::insert(transaction, &new, digest)
        })
        .await
    }

    /// Deletes a grant of a preview. Its number is not used again. Durable.
    ///
    /// # Errors
    /// [`StoreError::GrantNotFound`].
    pub async fn delete_grant(
        &self,
        slug: &GuestName,
        id: GrantId,
    ) -> Result<StoredGrant, StoreError> {
        let slug = slug.clone();
        self.write("delete a grant", Durability::Now, move |transaction| {
            grants::delete(transaction, &slug, id)
        })
        .await
    }

    /// Returns the grants of all previews, also expired ones, in ascending order of their numbers.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn grants(&self) -> Result<Vec<StoredGrant>, StoreError> {
        self.read("read the grants", grants::list).await
    }
}
