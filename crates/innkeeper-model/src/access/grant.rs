//! Share links and tokens of previews in the API.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{GrantId, GrantKind};

/// The default and the maximum lifetime of a share link, in seconds: seven days and a year.
pub const SHARE_LIFETIME: (u64, u64) = (7 * DAY, 366 * DAY);

/// The default and the maximum lifetime of a preview's token, in seconds: ninety days and a year.
pub const BYPASS_LIFETIME: (u64, u64) = (90 * DAY, 366 * DAY);

/// The maximum number of share links and tokens of a preview.
pub const MAX_GRANTS: usize = 100;

const DAY: u64 = 24 * 60 * 60;

/// A share link or a token of a preview, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GrantRecord {
    /// Its number.
    pub id: GrantId,
    /// Its use.
    pub kind: GrantKind,
    /// The actor that created it.
    pub created_by: String,
    /// Time of its creation.
    pub created_at: Timestamp,
    /// The time from which it is invalid.
    pub expires_at: Timestamp,
}

/// Creates a share link or a token of a preview.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateGrant {
    /// Its use.
    pub kind: GrantKind,
    /// Its lifetime in seconds; [`SHARE_LIFETIME`] or [`BYPASS_LIFETIME`] when omitted.
    #[serde(default)]
    pub expires_seconds: Option<u64>,
}

/// A new share link or token, with its secret: the only response that contains it. It has no `Debug`, so that it cannot get into a
/// log.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatedGrant {
    /// Its record.
    #[serde(flatten)]
    pub record: GrantRecord,
    /// The link, or the token.
    pub secret: String,
    /// The preview's URL.
    pub url: String,
    /// True if the preview is public, so that the grant has no effect yet.
    pub is_public: bool,
}
