//! Bodies of the API's requests and responses about the secrets of repositories. No response contains a value.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use super::{EnvName, RepoName};
use crate::{GuestName, Secret};

/// The maximum length of a secret's value, in bytes.
pub const MAX_SECRET: usize = 32 * 1024;

/// The maximum length of a request with a value, in bytes: JSON may need six for each.
pub const MAX_SECRET_REQUEST: usize = 6 * MAX_SECRET + 64;

/// Sets a secret of a repository.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SetSecret {
    /// The value.
    #[serde(serialize_with = "expose")]
    pub value: Secret,
}

fn expose<S: Serializer>(value: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(value.expose())
}

/// The effect of a request on a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SecretChange {
    /// The repository had no such secret.
    Created,
    /// It had another value.
    Replaced,
    /// It has the value already.
    Unchanged,
    /// It was removed.
    Removed,
}

/// A secret was set or removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SecretChanged {
    /// The repository.
    pub repo: RepoName,
    /// The secret's name.
    pub name: EnvName,
    /// The effect.
    pub change: SecretChange,
    /// The previews that use the secret and still have the former value.
    pub needs_restart: Vec<GuestName>,
}

/// The secrets of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RepoSecrets {
    /// The repository.
    pub repo: RepoName,
    /// The secrets that it has or that its previews request, by name.
    pub secrets: Vec<SecretView>,
}

/// A secret of a repository, without its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SecretView {
    /// Its name.
    pub name: EnvName,
    /// Its state.
    pub state: SecretState,
    /// The previews that request it, without those of forks.
    pub used_by: Vec<GuestName>,
    /// Those of them that still have a former value.
    pub needs_restart: Vec<GuestName>,
}

/// The state of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SecretState {
    /// It has a value.
    Set,
    /// A preview requests it, and it has no value.
    Missing,
    /// Its line in the file on the host is invalid.
    Invalid,
}

impl fmt::Display for SecretState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Set => "set",
            Self::Missing => "missing",
            Self::Invalid => "invalid",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_request_contains_the_value() {
        let request = SetSecret {
            value: Secret::new("hunter2\n"),
        };
        let json = serde_json::to_string(&request).expect("serializes");
        assert_eq!(json, r#"{"value":"hunter2\n"}"#);
        let back: SetSecret = serde_json::from_str(&json).expect("reads back");
        assert_eq!(back.value.expose(), "hunter2\n");
        assert!(!format!("{back:?}").contains("hunter2"));
    }
}
