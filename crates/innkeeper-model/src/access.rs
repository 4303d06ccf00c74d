//! Access from other machines: roles, actors, tokens, and the protocol between `innkeeper-gateway` and `innkeeperd`.
//!
//! A client is a program with a token, or a person with a session, which is a token of another kind: [`Person`].
//! The gateway authenticates clients; the daemon authorizes them. The gateway reads the digests of tokens from
//! [`TOKENS_FILE`], which the daemon writes, and passes requests on to [`GATEWAY_SOCKET`] with two headers. The daemon
//! resolves the actor to a role itself.
//!
//! | header | contents |
//! | --- | --- |
//! | [`ACTOR_HEADER`] | an [`Actor`]: `token:7`, `file:ci` |
//! | [`SOURCE_HEADER`] | the client's IP address |

mod grant;
mod person;
mod quota;
mod record;
mod token;
mod visitor;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use grant::{
    BYPASS_LIFETIME, CreateGrant, CreatedGrant, GrantRecord, MAX_GRANTS, SHARE_LIFETIME,
};
pub use person::{
    BeginLogin, CreateDeviceSession, CreatedSession, FinishLogin, Groups, InvalidLogin,
    InvalidPerson, Login, LoginPage, Person, PersonId, SessionView, TokenKind,
};
pub use quota::{ActorUse, Amount, QuotaReport, RepoUse};
pub use record::{
    AuditEntry, CreateToken, CreatedToken, DEFAULT_AUDIT_ENTRIES, MAX_AUDIT_ENTRIES,
    MAX_TOKEN_LIFETIME, TokenRecord, TokenState,
};
pub use token::{
    InvalidToken, InvalidTokenName, PublishedToken, TokenId, TokenName, TokenText, TokensFile,
};
pub use visitor::{
    ACCESS_FILE, ACCESS_HEADER, AccessFile, AccessGrant, BYPASS_HEADER, BYPASS_PARAMETER,
    CHECK_PATH, COOKIE_PREFIX, GrantId, GrantKind, GrantText, InvalidGrant, PreviewAccess,
    SHARE_PARAMETER, USER_HEADER, WIRE_COOKIE,
};

/// The name of the gateway's socket in the daemon's `runtime_dir`.
pub const GATEWAY_SOCKET: &str = "gateway.sock";

/// The path of the digests of tokens in the daemon's `runtime_dir`. Only root and the gateway's group may read it.
pub const TOKENS_FILE: &str = "gateway/tokens.json";

/// The header with the authenticated client. Only the gateway sets it.
pub const ACTOR_HEADER: &str = "innkeeper-actor";

/// The header with the client's IP address. Only the gateway sets it.
pub const SOURCE_HEADER: &str = "innkeeper-source";

/// Rights of a client. Each role includes those below it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sees guests, previews, their logs and events.
    Viewer,
    /// Also creates agents, and changes previews and the agents that it created.
    #[default]
    Developer,
    /// Also changes all guests, and approves pull requests.
    Operator,
    /// Also manages tokens and the host's upkeep, and reads the audit log.
    Admin,
}

impl Role {
    /// All roles, in ascending order of rights.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Developer, Self::Operator, Self::Admin];

    /// Returns the role's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Developer => "developer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is not a role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the roles are viewer, developer, operator and admin")]
pub struct InvalidRole;

impl FromStr for Role {
    type Err = InvalidRole;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut all = Self::ALL.into_iter();
        all.find(|role| role.as_str() == text).ok_or(InvalidRole)
    }
}

/// A client that the gateway has authenticated. The daemon resolves the token of a session to its [`Person`], who is the
/// actor from there on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Actor {
    /// A token of `innkeeper token create`: `token:7`.
    Token(TokenId),
    /// A pair of the gateway's own file of tokens: `file:ci`.
    File(TokenName),
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(id) => write!(f, "token:{id}"),
            Self::File(name) => write!(f, "file:{name}"),
        }
    }
}

/// A text that is not an actor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an actor is token:<id> or file:<name>")]
pub struct InvalidActor;

impl FromStr for Actor {
    type Err = InvalidActor;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("token", id)) => id.parse().map(Self::Token).map_err(|_| InvalidActor),
            Some(("file", name)) => TokenName::parse(name)
                .map(Self::File)
                .map_err(|_| InvalidActor),
            _ => Err(InvalidActor),
        }
    }
}

/// The response to `GET /v1/ready`: 200, or 503 while a part of the host does not work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReadyReport {
    /// True if all parts work.
    pub ready: bool,
    /// The parts that do not work: `database`, `firewall`, `caddy`, `nix`, `disk`.
    pub failing: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_ordered_by_their_rights() {
        assert!(Role::ALL.is_sorted());
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert_eq!("Admin".parse::<Role>(), Err(InvalidRole));
    }

    #[test]
    fn actor_has_one_text_form() {
        for text in ["token:7", "file:ci", "file:a.b_c-1"] {
            let actor: Actor = text.parse().expect(text);
            assert_eq!(actor.to_string(), text);
        }
        let garbage = [
            "",
            "token:",
            "token:07",
            "token:-1",
            "token:+7",
            "token: 7",
            "token:0",
            "file:",
            "file:a b",
            "file:a\0",
            "uid:0",
            "TOKEN:7",
            "token:99999999999999999999",
            "file:a:b",
            "token:7,token:8",
        ];
        for text in garbage {
            assert_eq!(text.parse::<Actor>(), Err(InvalidActor), "{text:?}");
        }
    }
}
