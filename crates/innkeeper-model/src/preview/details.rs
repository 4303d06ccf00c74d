//! What GitHub reports about a pull request and its repository, for people.

use serde::{Deserialize, Serialize};

/// Maximum length of a title, in characters. GitHub's limit is the same.
const MAX_TITLE: usize = 256;

/// Facts about a pull request and its repository. Titles and logins are the choice of strangers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct PullDetails {
    /// The pull request's title, without control characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Login of its author.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// True if the repository is private. `None` if GitHub did not report it: callers must then treat it as private.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private: Option<bool>,
}

impl PullDetails {
    /// Bounds a title and removes control characters.
    #[must_use]
    pub fn bounded_title(title: &str) -> String {
        let visible = title.chars().filter(|c| !c.is_control());
        visible.take(MAX_TITLE).collect()
    }

    /// Reports whether everybody may see the repository.
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.private == Some(false)
    }
}
