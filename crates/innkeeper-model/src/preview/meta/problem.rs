//! What can be wrong with a [`super::Meta`].

use std::fmt;

use serde::Serialize;

use super::{ExtraHost, Meta};
use crate::preview::checked::shown;
use crate::{Code, Explain};

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{}{wrong}", lead(.place))]
pub struct MetaProblem {
    /// Where: a JSON pointer (RFC 6901) such as `/routes/0/port`. Empty for the whole.
    pub place: String,
    /// What.
    pub wrong: MetaProblemKind,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum MetaProblemKind {
    /// It is not JSON.
    NotJson {
        /// What the reader said, with line and column.
        said: String,
    },
    /// It is larger than any description of an app.
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// A required field is not there.
    Missing,
    /// A field that means nothing.
    Unknown {
        /// A field that it looks like.
        nearest: Option<&'static str>,
        /// Every field that could stand there.
        known: &'static [&'static str],
    },
    /// A value of another type than it should have.
    Type {
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// A list that needs an entry has none.
    Empty,
    /// A list with more entries than are read.
    TooMany {
        /// How many there are.
        found: usize,
        /// How many there may be.
        max: usize,
    },
    /// A number that is no port.
    Port {
        /// The number as written.
        found: String,
    },
    /// A word that is none of those that can stand there.
    Word {
        /// The word.
        found: String,
        /// A word that it looks like.
        nearest: Option<&'static str>,
        /// Every word that can stand there.
        known: &'static [&'static str],
    },
    /// A text that breaks a rule.
    Text {
        /// Which text breaks which rule.
        said: String,
        /// What would be right.
        remedy: &'static str,
    },
    /// What another entry is for already.
    Duplicate {
        /// The text that stands twice.
        text: String,
        /// Where it stands first.
        first: String,
    },
    /// There is more that is wrong.
    More {
        /// How many problems are not listed.
        count: usize,
    },
}

impl MetaProblem {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match &self.wrong {
            MetaProblemKind::NotJson { .. } => {
                "write system.build.previewMeta with builtins.toJSON".to_owned()
            }
            MetaProblemKind::TooLarge { .. } => format!(
                "keep system.build.previewMeta below {} KiB",
                Meta::MAX_BYTES / 1024
            ),
            MetaProblemKind::Missing => "add it".to_owned(),
            MetaProblemKind::Unknown { nearest, known } => nearest.map_or_else(
                || format!("remove it; there are {}", known.join(", ")),
                |field| format!("write '{field}', or remove it"),
            ),
            MetaProblemKind::Type { expected, .. } => format!("make it {expected}"),
            MetaProblemKind::Empty => {
                "add one, for example { path = \"/\"; port = 3000; }".to_owned()
            }
            MetaProblemKind::TooMany { max, .. } => format!("keep the first {max} or fewer"),
            MetaProblemKind::Port { .. } => {
                "write the number of the port that the app listens on, 1 to 65535".to_owned()
            }
            MetaProblemKind::Word { known, .. } => format!("write \"{}\"", known.join("\" or \"")),
            MetaProblemKind::Text { remedy, .. } => (*remedy).to_owned(),
            MetaProblemKind::Duplicate { .. } => "remove one of the two".to_owned(),
            MetaProblemKind::More { .. } => "repair these first".to_owned(),
        }
    }
}

/// The place and a colon, or for the whole nothing.
fn lead(place: &str) -> String {
    if place.is_empty() {
        String::new()
    } else {
        format!("{}: ", shown(place))
    }
}

impl fmt::Display for MetaProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson { said } => write!(f, "it is not JSON: {said}"),
            Self::TooLarge { bytes } => write!(f, "it has {bytes} bytes, which is too much"),
            Self::Missing => f.write_str("this field is required and missing"),
            Self::Unknown { nearest: None, .. } => f.write_str("there is no such field"),
            Self::Unknown {
                nearest: Some(field),
                ..
            } => write!(f, "there is no such field; is '{field}' meant?"),
            Self::Type { expected, found } => write!(f, "it must be {expected} and is {found}"),
            Self::Empty => f.write_str("the list is empty"),
            Self::TooMany { found, max } => {
                write!(f, "the list has {found} entries; at most {max} are allowed")
            }
            Self::Port { found } => write!(f, "{found} is no port"),
            Self::Word { found, nearest, .. } => {
                write!(f, "'{}' is not known here", shown(found))?;
                nearest.map_or(Ok(()), |word| write!(f, "; is '{word}' meant?"))
            }
            Self::Text { said, .. } => f.write_str(said),
            Self::Duplicate { text, first } => {
                write!(f, "'{}' stands already at {first}", shown(text))
            }
            Self::More { count } => write!(f, "{count} more problems are not listed"),
        }
    }
}

/// What would be right for each kind of text.
pub(super) mod remedies {
    pub(in crate::preview::meta) const SERVICE: &str =
        "write the name of a service as in systemd.services, for example \"setup-app\"";
    pub(in crate::preview::meta) const PATH: &str =
        "write for example \"/\", \"/ws\" or \"/api/*\"";
    pub(in crate::preview::meta) const SECRET: &str =
        "write the name of an environment variable, for example \"STRIPE_SECRET_KEY\"";
    pub(in crate::preview::meta) const PREFIX: &str =
        "write 1 to 22 of a-z, 0-9 and '-', for example \"landing\"";
}

// The remedy for a prefix says the number.
const _: () = assert!(ExtraHost::MAX_PREFIX == 22);

/// Everything that is wrong, as one failure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.summary())]
pub struct MetaProblems(pub Vec<MetaProblem>);

impl MetaProblems {
    /// One problem for each line, with what to do about it.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let line = |problem: &MetaProblem| format!("{problem} ({})", problem.remedy());
        self.0.iter().map(line).collect()
    }

    fn summary(&self) -> String {
        const SUBJECT: &str = "system.build.previewMeta in preview-config.nix is wrong";
        match self.0.as_slice() {
            [only] => format!("{SUBJECT}: {only}"),
            all => format!(
                "{SUBJECT} in {} places: {}",
                all.len(),
                self.lines().join("; ")
            ),
        }
    }
}

impl Explain for MetaProblems {
    fn code(&self) -> Code {
        Code::PreviewConfigInvalid
    }

    fn remedy(&self) -> Option<String> {
        Some(match self.0.as_slice() {
            [only] => only.remedy(),
            _ => "repair these places and push again".to_owned(),
        })
    }
}
