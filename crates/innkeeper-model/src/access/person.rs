//! People, who log in with their GitHub account, and their sessions.
//!
//! A session is a token of another kind: it is published, expires and is revoked in the same way. Its actor is the person.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Role, TokenName};

/// GitHub's number of an account. A renamed account keeps it; a login may pass to another account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct PersonId(pub u64);

/// The prefix of a person in the text form of actors.
const PREFIX: &str = "github:";

impl fmt::Display for PersonId {
    /// Writes the actor's text form: `github:583231`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.0)
    }
}

/// A text that is not a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a person is github:<number of the account>")]
pub struct InvalidPerson;

impl FromStr for PersonId {
    type Err = InvalidPerson;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.strip_prefix(PREFIX).ok_or(InvalidPerson)?;
        let digits = number.bytes().all(|b| b.is_ascii_digit()) && !number.starts_with('0');
        // SQLite's integers are signed.
        let parsed = number.parse().ok().filter(|_| digits && !number.is_empty());
        let fits = |number: &u64| i64::try_from(*number).is_ok();
        parsed.filter(fits).map(Self).ok_or(InvalidPerson)
    }
}

/// The login of a GitHub account: 1 to 100 letters, digits, `-` and `_`, with a letter or digit in front.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Login(String);

/// A text that is not the login of a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a login has 1 to 100 letters, digits, '-' and '_', and a letter or digit in front")]
pub struct InvalidLogin;

impl Login {
    /// Parses a login. Those of Apps, which end in `[bot]`, are not logins of people.
    ///
    /// # Errors
    /// [`InvalidLogin`] for other characters, an empty or a long text.
    pub fn parse(text: &str) -> Result<Self, InvalidLogin> {
        let valid = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        match begins && text.len() <= 100 && text.bytes().all(valid) {
            true => Ok(Self(text.to_owned())),
            false => Err(InvalidLogin),
        }
    }

    /// Returns the login.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for Login {
    type Error = InvalidLogin;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Login> for String {
    fn from(login: Login) -> Self {
        login.0
    }
}

/// A person who has logged in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Person {
    /// The account's number, which is the actor of all its sessions.
    pub id: PersonId,
    /// The account's login at the last time it logged in.
    pub login: Login,
}

impl fmt::Display for Person {
    /// Writes the login with the actor: `octocat (github:583231)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.login, self.id)
    }
}

/// The organizations and teams of a person that the configuration names. Lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups {
    /// Logins of organizations.
    pub organizations: Vec<String>,
    /// Teams, as `organization/slug`.
    pub teams: Vec<String>,
}

/// The kind of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    /// A token of `innkeeper token create`.
    #[default]
    Token,
    /// The session of a person in a browser.
    Browser,
    /// The session of a person on a machine: `POST /v1/sessions/device`.
    Device,
}

impl TokenKind {
    /// Returns the kind's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Browser => "browser",
            Self::Device => "device",
        }
    }
}

impl fmt::Display for TokenKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The begin of a login: the gateway requests the address of GitHub's page. Both values are unreserved characters of URLs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BeginLogin {
    /// A random text, which GitHub returns.
    pub state: String,
    /// The challenge of PKCE (RFC 7636), with the method S256.
    pub challenge: String,
}

/// The address of GitHub's page for a login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LoginPage {
    /// The address.
    pub url: String,
}

/// The end of a login. It has no `Debug`, so that the code cannot get into a log.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct FinishLogin {
    /// GitHub's code, which is valid once.
    pub code: String,
    /// The verifier of the challenge.
    pub verifier: String,
}

/// The session of a person on a machine, requested by their session in a browser.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateDeviceSession {
    /// The machine's name, for people.
    pub machine: String,
}

/// A session as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionView {
    /// The person.
    pub person: Person,
    /// The person's rights.
    pub role: Role,
    /// The kind of the session.
    pub kind: TokenKind,
    /// Its name among all tokens, for `innkeeper token revoke`.
    pub name: TokenName,
    /// The time from which it is invalid.
    pub expires_at: Option<Timestamp>,
}

/// A new session, with its secret. It has no `Debug`, so that it cannot get into a log.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatedSession {
    /// The session.
    #[serde(flatten)]
    pub session: SessionView,
    /// The text that the client sends.
    pub token: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn person_has_one_text_form() {
        let person: PersonId = "github:583231".parse().expect("a person");
        assert_eq!(person.to_string(), "github:583231");
        for text in [
            "",
            "github:",
            "github:0",
            "github:07",
            "github:+7",
            "GitHub:7",
            "583231",
            "github:octocat",
            "github:9223372036854775808",
        ] {
            assert_eq!(text.parse::<PersonId>(), Err(InvalidPerson), "{text:?}");
        }
    }

    #[test]
    fn login_is_safe_to_print() {
        for good in ["octocat", "0-x", "mona_corp"] {
            Login::parse(good).expect(good);
        }
        let long = "a".repeat(101);
        for bad in [
            "",
            "-x",
            "_x",
            "a b",
            "a\n",
            "dependabot[bot]",
            "ä",
            "a/b",
            &long,
        ] {
            assert_eq!(Login::parse(bad), Err(InvalidLogin), "{bad:?}");
        }
    }
}
