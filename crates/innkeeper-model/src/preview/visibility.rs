//! The visitors that a preview's URLs serve.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The visitors that a preview's URLs serve. A later one is stricter: of several settings, the greatest applies.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Everybody.
    #[default]
    Public,
    /// All people who may log in on this host.
    Team,
    /// The people who may read the preview's repository on GitHub.
    Private,
}

impl Visibility {
    /// All of them, the strictest last.
    pub const ALL: [Self; 3] = [Self::Public, Self::Team, Self::Private];

    /// Returns the word of the configuration and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Team => "team",
            Self::Private => "private",
        }
    }

    /// Reports whether visitors are checked before they reach the preview.
    #[must_use]
    pub fn is_checked(self) -> bool {
        self != Self::Public
    }

    /// Returns the visitors, for people: `everybody`.
    #[must_use]
    pub const fn visitors(self) -> &'static str {
        match self {
            Self::Public => "everybody",
            Self::Team => "people who may log in on this host",
            Self::Private => "people who may read the repository",
        }
    }
}

impl fmt::Display for Visibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is not a visibility.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a visibility is public, team or private")]
pub struct InvalidVisibility;

impl FromStr for Visibility {
    type Err = InvalidVisibility;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut all = Self::ALL.into_iter();
        all.find(|visibility| visibility.as_str() == text)
            .ok_or(InvalidVisibility)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stricter_one_is_greater() {
        assert!(Visibility::ALL.is_sorted());
        assert_eq!(Visibility::default(), Visibility::Public);
        for visibility in Visibility::ALL {
            let text = visibility.to_string();
            assert_eq!(text.parse(), Ok(visibility));
            let json = serde_json::to_string(&visibility).expect("JSON");
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(visibility.is_checked(), text != "public");
        }
        assert_eq!("Private".parse::<Visibility>(), Err(InvalidVisibility));
    }
}
