//! Paths of files in a repository.

use serde::{Deserialize, Serialize};

use super::super::checked::checked_text;
use crate::preview::InvalidText;

/// A path in a repository, relative to its root: `nix/app.nix`. The empty path is the root itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SourcePath(String);

checked_text!(SourcePath);

impl SourcePath {
    /// Maximum length, in bytes.
    pub const MAX_BYTES: usize = 512;
    /// Maximum length of one component, in bytes. Linux accepts no longer name.
    pub const MAX_COMPONENT: usize = 255;
    /// Maximum number of components.
    pub const MAX_DEPTH: usize = 32;

    /// Parses a normalized path: without `.`, `..` and empty components. A path from a repository is untrusted, and is
    /// later the name of a file on the host.
    ///
    /// # Errors
    /// When a component is not a plain name, or the path is too long.
    pub fn parse(text: &str) -> Result<Self, InvalidText> {
        let invalid = |reason| {
            Err(InvalidText {
                what: "path in a repository",
                text: text.to_owned(),
                reason,
            })
        };
        if text.is_empty() {
            return Ok(Self::root());
        }
        if text.len() > Self::MAX_BYTES {
            return invalid("it exceeds 512 bytes");
        }
        if text.split('/').count() > Self::MAX_DEPTH {
            return invalid("it has more than 32 components");
        }
        for component in text.split('/') {
            if let Some(reason) = component_problem(component) {
                return invalid(reason);
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns the repository's root.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// Reports whether this is the repository's root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the components, none for the root.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|component| !component.is_empty())
    }

    /// Returns the last component, or the empty text for the root.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// Returns the folder that contains it; the root for the root.
    #[must_use]
    pub fn parent(&self) -> Self {
        Self(
            self.0
                .rsplit_once('/')
                .map_or("", |(parent, _)| parent)
                .to_owned(),
        )
    }

    /// Returns the path of an entry of this folder.
    ///
    /// # Errors
    /// As for [`Self::parse`].
    pub fn entry(&self, name: &str) -> Result<Self, InvalidText> {
        if name.contains('/') {
            return Err(InvalidText {
                what: "path in a repository",
                text: name.to_owned(),
                reason: "the name of a file contains a slash",
            });
        }
        if self.is_root() {
            Self::parse(name)
        } else {
            Self::parse(&format!("{}/{name}", self.0))
        }
    }

    /// Returns the path that a relative path in this folder refers to, by its text alone: `..` removes the component before
    /// it, as in Nix. `None` when it leaves the repository or is not a valid path.
    #[must_use]
    pub fn resolve(&self, relative: &str) -> Option<Self> {
        if relative.starts_with('/') {
            return None;
        }
        let mut components: Vec<&str> = self.components().collect();
        for component in relative.split('/') {
            match component {
                "" | "." => {}
                ".." => {
                    components.pop()?;
                }
                name => components.push(name),
            }
        }
        Self::parse(&components.join("/")).ok()
    }

    /// Reports whether a path is this folder or below it.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.is_root()
            || other == self
            || other
                .0
                .strip_prefix(&self.0)
                .is_some_and(|rest| rest.starts_with('/'))
    }
}

fn component_problem(component: &str) -> Option<&'static str> {
    match component {
        "" => Some("a component is empty"),
        "." | ".." => Some("a component is '.' or '..'"),
        name if name.len() > SourcePath::MAX_COMPONENT => Some("a component exceeds 255 bytes"),
        name if name.chars().any(char::is_control) => {
            Some("a component contains a control character")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_path_has_plain_components_only() {
        for good in ["", "a", "a/b.nix", ".github/x", "ä/日本 x", "a/..b", "-"] {
            assert_eq!(SourcePath::parse(good).expect(good).as_str(), good);
        }
        for bad in [
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/../b",
            "a/.",
            "a\nb",
            "a/\0",
            &"a/".repeat(40),
            &"a".repeat(256),
            &"abcdefg/".repeat(80),
        ] {
            SourcePath::parse(bad).expect_err(bad);
        }
    }

    #[test]
    fn resolve_stays_in_the_repository() {
        let folder = SourcePath::parse("nix/app").expect("valid");
        for (relative, expected) in [
            (".", Some("nix/app")),
            ("./x.nix", Some("nix/app/x.nix")),
            ("../x.nix", Some("nix/x.nix")),
            ("../..", Some("")),
            ("../../..", None),
            ("a/../../b", Some("nix/b")),
            ("/etc/passwd", None),
        ] {
            let found = folder.resolve(relative);
            assert_eq!(
                found.as_ref().map(SourcePath::as_str),
                expected,
                "{relative}"
            );
        }
        let root = SourcePath::root();
        assert_eq!(root.resolve("..").as_ref(), None);
        assert!(root.contains(&folder) && folder.contains(&folder));
        assert!(!folder.contains(&SourcePath::parse("nix/apple").expect("valid")));
    }
}
