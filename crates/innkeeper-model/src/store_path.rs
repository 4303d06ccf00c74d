//! Paths in the Nix store.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The Nix store's directory. Other directories are not supported: they would need their own binary cache.
pub const STORE_DIR: &str = "/nix/store";

/// The path of a store object, `/nix/store/<hash>-<name>`, and never of a file inside it.
///
/// The rules are those of the Nix manual, "Store Path": a hash of 32 characters in Nix's own base 32
/// (no `e`, `o`, `t`, `u`), and a name of 1 to 211 characters out of `a-z A-Z 0-9 + - . _ ? =` that is
/// neither `.` nor `..`, and does not start with one of them and a `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StorePath(String);

/// The text is not a [`StorePath`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{path}' is not a store path: {reason}")]
pub struct InvalidStorePath {
    path: String,
    reason: &'static str,
}

impl StorePath {
    const HASH_LENGTH: usize = 32;
    const MAX_NAME_LENGTH: usize = 211;

    /// Parses a path such as `/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest`.
    ///
    /// # Errors
    /// [`InvalidStorePath`] names the text and the broken rule.
    pub fn parse(text: &str) -> Result<Self, InvalidStorePath> {
        check(text).map_err(|reason| InvalidStorePath {
            path: text.to_owned(),
            reason,
        })?;
        Ok(Self(text.to_owned()))
    }

    /// Returns the path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }

    /// Returns the program that is PID 1 of a guest with this closure.
    #[must_use]
    pub fn init(&self) -> PathBuf {
        self.as_path().join("init")
    }
}

fn check(text: &str) -> Result<(), &'static str> {
    let base = text
        .strip_prefix(STORE_DIR)
        .and_then(|rest| rest.strip_prefix('/'))
        .ok_or("it does not start with /nix/store/")?;
    let (hash, name) = base
        .split_once('-')
        .ok_or("'-' is missing between its hash and its name")?;
    let base32 =
        |c: char| matches!(c, '0'..='9' | 'a'..='z') && !matches!(c, 'e' | 'o' | 't' | 'u');
    if hash.len() != StorePath::HASH_LENGTH || !hash.chars().all(base32) {
        return Err("its hash is not 32 characters of Nix's base 32");
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "+-._?=".contains(c);
    if let Some(bad) = name.chars().find(|c| !allowed(*c)) {
        return Err(match bad {
            '/' => "it points inside a store object; use the object itself",
            _ => "its name has an invalid character",
        });
    }
    if name.is_empty() || name.len() > StorePath::MAX_NAME_LENGTH {
        return Err("the length of its name is not 1 to 211 characters");
    }
    if matches!(name.split('-').next(), Some("." | "..")) {
        return Err("its name is '.' or '..' or starts with one and '-'");
    }
    Ok(())
}

impl FromStr for StorePath {
    type Err = InvalidStorePath;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for StorePath {
    type Error = InvalidStorePath;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<StorePath> for String {
    fn from(path: StorePath) -> Self {
        path.0
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HASH: &str = "n6493hpj13gq9qi78yj3r3gwzljw9phk";

    #[test]
    fn store_path_accepts_nix_paths() {
        let path = StorePath::parse(&format!("/nix/store/{HASH}-nixos-system-agent-26.05"))
            .expect("valid");
        assert_eq!(path.init(), Path::new(path.as_str()).join("init"));
    }

    #[test]
    fn store_path_rejects_other_texts() {
        for bad in [
            "",
            "/nix/store",
            "/nix/store/",
            &format!("/nix/store/{HASH}"),
            &format!("/nix/store/{HASH}-"),
            &format!("/nix/store/{HASH}-a/init"),
            &format!("/nix/store/{HASH}-a b"),
            &format!("/nix/store/{HASH}-.."),
            &format!("/nix/store/{HASH}-..-x"),
            &format!("/nix/store/{HASH}-{}", "x".repeat(212)),
            "/nix/store/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee-a",
            "/nix/store/short-a",
            &format!("/gnu/store/{HASH}-a"),
            &format!("nix/store/{HASH}-a"),
        ] {
            assert!(StorePath::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn store_path_is_one_component_below_the_store(text in "/nix/store/[0-9a-z]{32}-.{0,20}") {
            if let Ok(path) = StorePath::parse(&text) {
                prop_assert_eq!(path.as_path().parent(), Some(Path::new(STORE_DIR)));
                prop_assert_eq!(path.as_str(), text);
            }
        }
    }
}
