//! Settings of single repositories.

use innkeeper_model::preview::Visibility;
use innkeeper_model::preview::sources::{SourcePath, SourceTree};
use serde::{Deserialize, Serialize};

/// Settings of one repository, in place of those of all.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RepositorySettings {
    /// The paths of its configurations; omitted means `previews.config_path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_path: Option<ConfigPath>,
    /// The visitors of its previews; omitted means `previews.visibility`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visibility: Option<Visibility>,
}

/// The path of a configuration in a repository, or several, each of which gets its own preview. Written as a text or a list
/// of texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "OneOrSeveral", into = "OneOrSeveral")]
pub struct ConfigPath(Vec<SourcePath>);

#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a path in the repository, or a list of paths"
)]
enum OneOrSeveral {
    One(String),
    Several(Vec<String>),
}

impl ConfigPath {
    /// Maximum number of configurations of a repository.
    pub const MAX: usize = 8;

    /// Returns the paths, at least one.
    #[must_use]
    pub fn paths(&self) -> &[SourcePath] {
        &self.0
    }
}

impl Default for ConfigPath {
    fn default() -> Self {
        Self(SourcePath::parse(SourceTree::MAIN).into_iter().collect())
    }
}

impl TryFrom<OneOrSeveral> for ConfigPath {
    type Error = String;

    fn try_from(written: OneOrSeveral) -> Result<Self, String> {
        let texts = match written {
            OneOrSeveral::One(text) => vec![text],
            OneOrSeveral::Several(texts) => texts,
        };
        if texts.is_empty() || texts.len() > Self::MAX {
            return Err(format!("write 1 to {} paths", Self::MAX));
        }
        let mut paths = Vec::new();
        for text in texts {
            let text = text.strip_prefix("./").unwrap_or(&text);
            let path = SourcePath::parse(text).map_err(|error| error.to_string())?;
            if !text.ends_with(".nix") {
                return Err(format!(
                    "'{text}' is not the path of a Nix file; write for example deploy/preview-config.nix"
                ));
            }
            if paths.contains(&path) {
                return Err(format!("'{path}' is listed twice"));
            }
            paths.push(path);
        }
        Ok(Self(paths))
    }
}

impl From<ConfigPath> for OneOrSeveral {
    fn from(paths: ConfigPath) -> Self {
        let mut texts: Vec<String> = paths.0.into_iter().map(String::from).collect();
        match texts.len() {
            1 => Self::One(texts.remove(0)),
            _ => Self::Several(texts),
        }
    }
}
