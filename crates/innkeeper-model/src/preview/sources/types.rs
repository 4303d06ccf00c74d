//! The file types that configuration needs.

use crate::preview::InvalidText;

/// Name patterns of the files that an evaluation receives from folders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileTypes {
    extra: Vec<String>,
}

impl FileTypes {
    /// The built-in patterns: Nix files, data that Nix reads, lock files, and small files that packages refer to. A pattern
    /// is a file's name, or `*` and the end of a name.
    pub const BUILT_IN: &[&str] = &[
        "*.nix",
        "*.json",
        "*.toml",
        "*.yaml",
        "*.yml",
        "*.ini",
        "*.conf",
        "*.lock",
        "*.patch",
        "*.diff",
        "*.sh",
        "*.sql",
        "*.service",
        "*.timer",
        ".node-version",
        ".nvmrc",
        ".python-version",
        ".ruby-version",
        ".tool-versions",
        "Gemfile",
        "go.mod",
        "go.sum",
        "requirements.txt",
    ];

    /// Adds patterns to the built-in ones.
    ///
    /// # Errors
    /// When a pattern is empty, contains a slash, or has a `*` that is not its first character.
    pub fn with(extra: &[String]) -> Result<Self, InvalidText> {
        for pattern in extra {
            let invalid = |reason| InvalidText {
                what: "file type",
                text: pattern.clone(),
                reason,
            };
            let rest = pattern.strip_prefix('*').unwrap_or(pattern);
            if rest.is_empty() {
                return Err(invalid("write a file's name, or '*' and the end of a name"));
            }
            if rest.contains(['*', '/']) {
                return Err(invalid("only '*' at the start is allowed, and no '/'"));
            }
        }
        Ok(Self {
            extra: extra.to_vec(),
        })
    }

    /// Returns the patterns that were added.
    #[must_use]
    pub fn extra(&self) -> &[String] {
        &self.extra
    }

    /// Reports whether a file with this name is of one of the types.
    #[must_use]
    pub fn include(&self, name: &str) -> bool {
        let extra = self.extra.iter().map(String::as_str);
        Self::BUILT_IN
            .iter()
            .copied()
            .chain(extra)
            .any(|pattern| match pattern.strip_prefix('*') {
                Some(end) => name.ends_with(end),
                None => name == pattern,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_types_match_names_and_endings() {
        let types = FileTypes::with(&["*.tmpl".to_owned(), "VERSION".to_owned()]).expect("valid");
        for name in [
            "a.nix",
            "flake.lock",
            "package.json",
            "go.sum",
            "x.tmpl",
            "VERSION",
        ] {
            assert!(types.include(name), "{name}");
        }
        for name in ["a.png", "nix", "VERSION.txt", "README.md", "x.tmpl.bak"] {
            assert!(!types.include(name), "{name}");
        }
        for bad in ["", "*", "a*b", "**", "a/b", "*.a*"] {
            FileTypes::with(&[bad.to_owned()]).expect_err(bad);
        }
    }
}
