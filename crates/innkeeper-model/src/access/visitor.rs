//! Visitors of previews that are not public: the file that the gateway reads, the names on the wire, and the texts of
//! grants.
//!
//! Caddy asks the gateway's access socket before it serves a request for such a preview (`forward_auth`). The gateway
//! decides from [`ACCESS_FILE`], without the daemon.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::token::{TokenId, base64url};
use crate::preview::{RepoName, Visibility};
use crate::{GuestName, Secret};

/// The path of [`AccessFile`] in the daemon's `runtime_dir`. Only root and the gateway's group may read it.
pub const ACCESS_FILE: &str = "gateway/access.json";

/// The path of Caddy's requests to the access socket. The visitor's own is in `X-Forwarded-Uri`.
pub const CHECK_PATH: &str = "/.innkeeper-check";

/// The header of Caddy's requests to the access socket with the preview, after a `/`. A visitor's own is removed.
pub const ACCESS_HEADER: &str = "x-innkeeper-access";

/// The header in which a program sends a [`GrantText`]. Apps do not receive it.
pub const BYPASS_HEADER: &str = "x-innkeeper-bypass";

/// The query parameter with the [`GrantText`] of a share link. Apps do not receive it.
pub const SHARE_PARAMETER: &str = "innkeeper_share";

/// The query parameter with the [`GrantText`] of a program in a browser. Apps do not receive it.
pub const BYPASS_PARAMETER: &str = "innkeeper_bypass";

/// The start of the names of all cookies of ours. Apps do not receive them.
pub const COOKIE_PREFIX: &str = "__Host-innkeeper";

/// The cookie and the query parameter of earlier systems, a JSON web token. Apps do not receive it.
pub const WIRE_COOKIE: &str = "sandbox_preview";

/// The header with the visitor in requests to apps. Only the gateway sets it; a visitor's own is removed.
pub const USER_HEADER: &str = "x-sandbox-external-user-id";

/// The number of a grant. It is never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct GrantId(pub i64);

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for GrantId {
    type Err = InvalidGrant;

    /// Parses a decimal number above 0, without sign and leading zeros.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let TokenId(id) = text.parse().map_err(|_| InvalidGrant)?;
        Ok(Self(id))
    }
}

/// The use of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum GrantKind {
    /// A link for people, of `preview share`.
    Share,
    /// A token for programs, of `preview token`.
    Bypass,
}

impl GrantKind {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Share, Self::Bypass];

    /// Returns the word of the API and the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Share => "share",
            Self::Bypass => "bypass",
        }
    }
}

impl fmt::Display for GrantKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is not that of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the secret of a share link or a preview's token has the form ig_<number>_<43 characters>")]
pub struct InvalidGrant;

/// The secret of a share link, or a token of `preview token`: `ig_<id>_<secret>`. The secret is 32 random bytes in base64url
/// without padding.
#[derive(Clone, Debug)]
pub struct GrantText {
    id: GrantId,
    text: Secret,
}

impl GrantText {
    /// The start of all texts.
    pub const PREFIX: &str = "ig_";

    /// The length of a secret's text.
    const SECRET_LENGTH: usize = 43;

    /// The maximum length of a text.
    pub const MAX_LENGTH: usize = Self::PREFIX.len() + 19 + 1 + Self::SECRET_LENGTH;

    /// Returns the text of the grant with this number and these random bytes.
    #[must_use]
    pub fn new(id: GrantId, secret: &[u8; 32]) -> Self {
        Self {
            id,
            text: Secret::new(format!("{}{id}_{}", Self::PREFIX, base64url(secret))),
        }
    }

    /// Parses a visitor's text. It may still be unknown, expired, revoked, or of another preview.
    ///
    /// # Errors
    /// [`InvalidGrant`] for any other text.
    pub fn parse(text: &str) -> Result<Self, InvalidGrant> {
        let rest = text.strip_prefix(Self::PREFIX).ok_or(InvalidGrant)?;
        let (id, secret) = rest.split_once('_').ok_or(InvalidGrant)?;
        let valid = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
        if secret.len() != Self::SECRET_LENGTH || !secret.bytes().all(valid) {
            return Err(InvalidGrant);
        }
        Ok(Self {
            id: id.parse()?,
            text: Secret::new(text),
        })
    }

    /// Returns the grant's number.
    #[must_use]
    pub fn id(&self) -> GrantId {
        self.id
    }

    /// Returns the text, to show it once.
    #[must_use]
    pub fn text(&self) -> &Secret {
        &self.text
    }

    /// Returns the SHA-256 digest of the whole text. Compare it in constant time.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.text.expose()).into()
    }
}

/// The file [`ACCESS_FILE`]: the gateway's knowledge of previews and their visitors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessFile {
    /// [`AccessFile::VERSION`].
    pub version: u32,
    /// The previews that are not public, by their slugs.
    pub previews: Vec<PreviewAccess>,
    /// The grants that are not revoked, in ascending order of their numbers.
    pub grants: Vec<AccessGrant>,
}

impl AccessFile {
    /// The version of the format.
    pub const VERSION: u32 = 1;
}

/// A preview in [`AccessFile`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviewAccess {
    /// The preview.
    pub slug: GuestName,
    /// Its host names, in lower case and without a port: that of its slug first, then the extra ones.
    pub hosts: Vec<String>,
    /// Its visitors.
    pub visibility: Visibility,
    /// Its repository.
    pub repo: RepoName,
    /// True if its commit comes from a fork of the repository.
    pub fork: bool,
}

/// A grant in [`AccessFile`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessGrant {
    /// Its number.
    pub id: GrantId,
    /// The only preview that it opens.
    pub slug: GuestName,
    /// Its use.
    pub kind: GrantKind,
    /// The SHA-256 digest of its text, in lower-case hexadecimal digits.
    pub sha256: String,
    /// The time from which it is invalid; `None` means never.
    pub expires: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::TokenText;

    #[test]
    fn grant_has_one_text_form() {
        let grant = GrantText::new(GrantId(7), &[0xff; 32]);
        let text = grant.text().expose().to_owned();
        assert_eq!(text, format!("ig_7_{}8", "_".repeat(42)));
        let parsed = GrantText::parse(&text).expect("a grant");
        assert_eq!(parsed.id(), GrantId(7));
        assert_eq!(parsed.digest(), grant.digest());
        assert_ne!(
            parsed.digest(),
            GrantText::new(GrantId(8), &[0xff; 32]).digest()
        );
        let longest = GrantText::new(GrantId(i64::MAX), &[0; 32]);
        assert_eq!(longest.text().expose().len(), GrantText::MAX_LENGTH);
    }

    #[test]
    fn token_of_the_api_is_no_grant() {
        let token = TokenText::new(TokenId(7), &[0; 32]);
        assert!(GrantText::parse(token.text().expose()).is_err());
        let grant = GrantText::new(GrantId(7), &[0; 32]);
        assert!(TokenText::parse(grant.text().expose()).is_err());
    }

    #[test]
    fn garbage_is_no_grant() {
        let secret = "A".repeat(43);
        for text in [
            String::new(),
            format!("ig_{secret}"),
            format!("ig__{secret}"),
            format!("ig_07_{secret}"),
            format!("ig_0_{secret}"),
            format!("ig_-1_{secret}"),
            format!("ig_99999999999999999999_{secret}"),
            format!("ig_7_{secret}A"),
            format!("ig_7_{}ä", "A".repeat(41)),
            format!(" ig_7_{secret}"),
            format!("IG_7_{secret}"),
        ] {
            assert!(GrantText::parse(&text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn file_has_the_format_of_its_version() {
        let file = AccessFile {
            version: AccessFile::VERSION,
            previews: vec![PreviewAccess {
                slug: GuestName::parse("web-12").expect("a name"),
                hosts: vec!["web-12.preview.example.org".to_owned()],
                visibility: Visibility::Team,
                repo: RepoName::parse("octo/web").expect("a repository"),
                fork: false,
            }],
            grants: vec![AccessGrant {
                id: GrantId(1),
                slug: GuestName::parse("web-12").expect("a name"),
                kind: GrantKind::Bypass,
                sha256: "ab".repeat(32),
                expires: Some(Timestamp::UNIX_EPOCH),
            }],
        };
        let text = serde_json::to_string(&file).expect("JSON");
        assert_eq!(
            text,
            format!(
                "{{\"version\":1,\"previews\":[{{\"slug\":\"web-12\",\"hosts\":[\"web-12.preview.example.org\"],\
                 \"visibility\":\"team\",\"repo\":\"octo/web\",\"fork\":false}}],\"grants\":[{{\"id\":1,\
                 \"slug\":\"web-12\",\"kind\":\"bypass\",\"sha256\":\"{}\",\"expires\":\"1970-01-01T00:00:00Z\"}}]}}",
                "ab".repeat(32)
            )
        );
        assert_eq!(serde_json::from_str::<AccessFile>(&text).ok(), Some(file));
    }
}
