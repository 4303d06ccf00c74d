//! Flake outputs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A flake output: a flake reference, `#`, and an attribute path, as `nix build` takes it
/// (Nix manual, "Installables").
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Installable {
    flake: String,
    attribute: String,
}

/// The authority under which a flake is fetched and evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// The host's administrator: any flake reference, with the daemon's permissions.
    Host,
    /// Any other caller: remote flake references only, as a user without permissions.
    Member,
}

/// The kinds of flake references that a [`Trust::Member`] may use. They refer to the network. Every other kind can refer
/// to a file of the host (`path:`, `git+file:`, an absolute path), a key of the daemon's user (`git+ssh:`), or an entry of
/// the host's registry that does.
const REMOTE: [&str; 9] = [
    "github:",
    "gitlab:",
    "sourcehut:",
    "git+https://",
    "git+http://",
    "tarball+https://",
    "tarball+http://",
    "https://",
    "http://",
];

/// The text is not an [`Installable`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a flake output: {reason}")]
pub struct InvalidInstallable {
    text: String,
    reason: &'static str,
}

impl Installable {
    /// The default output for agents.
    pub const DEFAULT_ATTRIBUTE: &str = "nixosConfigurations.agent.config.system.build.toplevel";

    /// Parses `<flake>` or `<flake>#<attribute>`; the attribute defaults to `default_attribute`.
    ///
    /// # Errors
    /// [`InvalidInstallable`] when either part is empty, starts with `-` (Nix would take it for an
    /// option) or contains white space or a control character.
    pub fn parse(text: &str, default_attribute: &str) -> Result<Self, InvalidInstallable> {
        let (flake, attribute) = text.split_once('#').unwrap_or((text, default_attribute));
        let refuse = |reason| {
            Err(InvalidInstallable {
                text: text.to_owned(),
                reason,
            })
        };
        if flake.is_empty() {
            return refuse(
                "the flake is missing; write for example /srv/fleet or github:owner/repo",
            );
        }
        if attribute.is_empty() {
            return refuse("the attribute after '#' is missing");
        }
        if flake.starts_with('-') || attribute.starts_with('-') {
            return refuse("it starts with '-'");
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return refuse("it contains white space");
        }
        Ok(Self {
            flake: flake.to_owned(),
            attribute: attribute.to_owned(),
        })
    }

    /// Returns the flake reference, such as `/srv/fleet` or `github:owner/repo`.
    #[must_use]
    pub fn flake(&self) -> &str {
        &self.flake
    }

    /// Reports whether a [`Trust::Member`] may use the flake reference.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        REMOTE.iter().any(|scheme| self.flake.starts_with(scheme))
    }

    /// Returns the attribute path, such as `packages.x86_64-linux.guest`.
    #[must_use]
    pub fn attribute(&self) -> &str {
        &self.attribute
    }
}

impl fmt::Display for Installable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.flake, self.attribute)
    }
}

impl TryFrom<String> for Installable {
    type Error = InvalidInstallable;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text, Self::DEFAULT_ATTRIBUTE)
    }
}

impl From<Installable> for String {
    fn from(installable: Installable) -> Self {
        installable.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installable_has_an_optional_attribute() {
        let given = Installable::parse("/srv/fleet#guest", "x").expect("valid");
        assert_eq!((given.flake(), given.attribute()), ("/srv/fleet", "guest"));
        let defaulted = Installable::parse("/srv/fleet", "x.y").expect("valid");
        assert_eq!(defaulted.to_string(), "/srv/fleet#x.y");
    }

    #[test]
    fn installable_is_remote_only_on_the_network() {
        let remote = |flake: &str| Installable::parse(flake, "x").expect(flake).is_remote();
        for flake in [
            "github:o/r",
            "gitlab:o/r/main",
            "sourcehut:~o/r",
            "git+https://host/o/r?dir=a",
            "git+http://host/o/r",
            "https://host/flake.tar.gz",
            "tarball+http://host/flake.tar.gz",
        ] {
            assert!(remote(flake), "{flake} is refused");
        }
        for flake in [
            "/root/secret",
            ".",
            "./flake",
            "../flake",
            "path:/root/secret",
            "path:secret",
            "git+file:///root/secret",
            "git+file:/root/secret",
            "file:///root/secret.tar.gz",
            "tarball+file:///root/secret.tar.gz",
            "file+file:///root/secret",
            "git:///root/secret",
            "git+ssh://git@host/o/r",
            "hg+file:///root/secret",
            "GITHUB:o/r",
            "nixpkgs",
            "flake:nixpkgs",
            "https:/root/secret",
        ] {
            assert!(!remote(flake), "{flake} is accepted");
        }
    }

    #[test]
    fn installable_cannot_inject_an_option_of_nix() {
        for bad in ["", "#a", "a#", "--impure", "a#--impure", "a b", "a#b\nc"] {
            assert!(
                Installable::parse(bad, "x").is_err(),
                "{bad:?} was accepted"
            );
        }
    }
}
