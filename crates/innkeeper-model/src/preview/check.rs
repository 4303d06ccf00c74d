//! Bodies of the calls that check a configuration: `GET` and `POST /v1/preview-checks`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::sources::{OmittedReason, SourcePath, SourceTree};
use super::{ConfigProblem, InvalidText, Meta};

/// The host's settings that affect the files to send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CheckSettings {
    /// Patterns of [`FileTypes`](super::sources::FileTypes) beside the built-in ones (`previews.file_types`).
    pub file_types: Vec<String>,
}

/// A configuration to check: the client sends the files, because the daemon reads none for its users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CheckConfig {
    /// The main file, one of `files`.
    pub main: SourcePath,
    /// Files by path.
    pub files: BTreeMap<SourcePath, CheckedFile>,
    /// Symbolic links by path, with their targets relative to the link's folder.
    #[serde(default)]
    pub links: BTreeMap<SourcePath, String>,
    /// Files of the repository that are left out although a folder with them is sent.
    #[serde(default)]
    pub omitted: BTreeSet<SourcePath>,
}

/// A file of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CheckedFile {
    /// Its text.
    pub text: String,
    /// True if it may be executed.
    #[serde(default)]
    pub executable: bool,
}

impl CheckConfig {
    /// Maximum size of the request, in bytes.
    pub const MAX_BYTES: usize = 16 << 20;

    /// Returns the files as the evaluation reads them.
    ///
    /// # Errors
    /// The main file is missing, a file or link is also a folder, or a link leaves the repository.
    pub fn into_sources(self) -> Result<SourceTree, InvalidText> {
        self.check()?;
        let mut sources = SourceTree::new(self.main);
        for (path, file) in self.files {
            sources.add_file(path, file.text.into_bytes(), file.executable);
        }
        for (path, target) in self.links {
            sources.add_link(path, target);
        }
        for path in self.omitted {
            sources.omit(path, OmittedReason::Type);
        }
        Ok(sources)
    }

    fn check(&self) -> Result<(), InvalidText> {
        let invalid = |path: &SourcePath, reason| {
            Err(InvalidText {
                what: "entry of a configuration",
                text: path.to_string(),
                reason,
            })
        };
        if !self.files.contains_key(&self.main) {
            return invalid(&self.main, "the main file is not among the files");
        }
        for path in self.files.keys().chain(self.links.keys()) {
            let mut folder = path.parent();
            while !folder.is_root() {
                if self.files.contains_key(&folder) || self.links.contains_key(&folder) {
                    return invalid(path, "a folder above it is a file or a link");
                }
                folder = folder.parent();
            }
            if path.is_root() || self.files.contains_key(path) && self.links.contains_key(path) {
                return invalid(path, "it is a file and a link, or the root");
            }
        }
        for (path, target) in &self.links {
            if path.parent().resolve(target).is_none() {
                return invalid(path, "it is a link to a place outside of the repository");
            }
        }
        Ok(())
    }
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CheckedConfig {
    /// All problems that are found; none if the configuration is valid.
    pub problems: Vec<CheckedProblem>,
    /// The preview that it describes. `None` if it is invalid, or if only a build can make its metadata.
    pub preview: Option<Meta>,
}

/// A problem of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CheckedProblem {
    /// Place, field and message in one line: `preview-config.nix:12:9: 0 is not a port`.
    pub text: String,
    /// The file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<SourcePath>,
    /// The line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The column in characters, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// The field or option.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The problem alone.
    pub message: String,
    /// The remedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl From<ConfigProblem> for CheckedProblem {
    fn from(problem: ConfigProblem) -> Self {
        let remedy = problem.remedy.clone();
        let alone = ConfigProblem {
            remedy: None,
            ..problem
        };
        let text = alone.to_string();
        let (file, line, column) = match alone.place {
            Some(place) => (Some(place.file), Some(place.line), Some(place.column)),
            None => (None, None, None),
        };
        Self {
            text,
            file,
            line,
            column,
            field: alone.field,
            message: alone.message,
            remedy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_form_a_tree_inside_the_repository() {
        let sources = |json: &str| {
            let config: CheckConfig = serde_json::from_str(json).expect("a request");
            config.into_sources()
        };
        let good = r#"{"main":"a.nix","files":{"a.nix":{"text":"{ }"},"b/c.sh":{"text":"x","executable":true}},
                       "links":{"b/d":"../a.nix"},"omitted":["b/x.png"]}"#;
        let tree = sources(good).expect("valid");
        assert_eq!(tree.entries().len(), 3);
        assert_eq!(tree.omitted().len(), 1);
        for bad in [
            r#"{"main":"b.nix","files":{"a.nix":{"text":""}}}"#,
            r#"{"main":"a","files":{"a":{"text":""},"a/b":{"text":""}}}"#,
            r#"{"main":"a","files":{"a":{"text":""},"b/c":{"text":""}},"links":{"b":"a"}}"#,
            r#"{"main":"a","files":{"a":{"text":""}},"links":{"a":"b"}}"#,
            r#"{"main":"a","files":{"a":{"text":""}},"links":{"b":"/etc/passwd"}}"#,
            r#"{"main":"a","files":{"a":{"text":""}},"links":{"b":"../x"}}"#,
        ] {
            assert!(sources(bad).is_err(), "{bad}");
        }
        for path in ["../a", "/a", "a/../b", ".."] {
            let json = format!(r#"{{"main":"{path}","files":{{"{path}":{{"text":""}}}}}}"#);
            assert!(
                serde_json::from_str::<CheckConfig>(&json).is_err(),
                "{path}"
            );
        }
    }
}
