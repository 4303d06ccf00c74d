//! Tokens and audit entries as the API shows them.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Login, Person, Role, TokenId, TokenKind, TokenName};
use crate::preview::RepoName;

/// The maximum lifetime of a token that expires, in seconds: ten years.
pub const MAX_TOKEN_LIFETIME: u64 = 10 * 366 * 24 * 60 * 60;

/// Default limit of a list of audit entries.
pub const DEFAULT_AUDIT_ENTRIES: usize = 200;

/// The maximum number of audit entries in a response.
pub const MAX_AUDIT_ENTRIES: usize = 10_000;

/// Creates a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// Its name. No other valid token has it.
    pub name: TokenName,
    /// Its rights.
    #[serde(default)]
    pub role: Role,
    /// The only repository whose previews it may use; all of the host when omitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<RepoName>,
    /// Its lifetime in seconds, at most [`MAX_TOKEN_LIFETIME`]; unlimited when omitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_seconds: Option<u64>,
}

/// A token without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenRecord {
    /// Its number.
    pub id: TokenId,
    /// Its name.
    pub name: TokenName,
    /// Its kind: other kinds are sessions of people.
    #[serde(default)]
    pub kind: TokenKind,
    /// The person whose session it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<Person>,
    /// Its rights.
    pub role: Role,
    /// The only repository whose previews it may use.
    pub repo: Option<RepoName>,
    /// The actor that created it.
    pub created_by: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// The time from which it is invalid.
    pub expires_at: Option<Timestamp>,
    /// The time of its last use, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

impl TokenRecord {
    /// Returns the token's state at a time.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> TokenState {
        match (self.revoked_at, self.expires_at) {
            (Some(_), _) => TokenState::Revoked,
            (None, Some(end)) if end <= now => TokenState::Expired,
            _ => TokenState::Valid,
        }
    }
}

/// The state of a token: it is accepted while valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenState {
    /// It is accepted.
    Valid,
    /// Its lifetime is over.
    Expired,
    /// It was revoked.
    Revoked,
}

impl fmt::Display for TokenState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Valid => "valid",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        })
    }
}

/// A new token, with its secret: the only response that contains it. It has no `Debug`, so that it cannot get into a log.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatedToken {
    /// The token's record.
    #[serde(flatten)]
    pub record: TokenRecord,
    /// The text that a client sends.
    pub token: String,
    /// True if `gateway.enabled` is set. Otherwise no client can use the token yet.
    pub gateway_enabled: bool,
}

/// One change in the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditEntry {
    /// Its number.
    pub seq: i64,
    /// When the request arrived.
    pub time: Timestamp,
    /// The actor: `uid:1000` on the host; through the gateway, [`token:7` or `file:ci`](super::Actor), or
    /// [`github:583231`](super::PersonId) for a person.
    pub actor: String,
    /// The login of the actor, if it is a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<Login>,
    /// The name of the actor's token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenName>,
    /// The client's IP address; `None` for a client on the host.
    pub source: Option<String>,
    /// The request, such as `guest-create`.
    pub verb: String,
    /// The guest, preview, token or delivery that it concerns.
    pub object: Option<String>,
    /// `ok`, or the code of the failure. `None` while the request has no response, also after a crash.
    pub result: Option<String>,
}
