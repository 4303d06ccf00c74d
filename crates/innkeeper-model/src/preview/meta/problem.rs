//! Problems of a [`super::Meta`].

use std::fmt;

use super::{ExtraHost, Meta};
use crate::preview::ConfigProblem;
use crate::preview::checked::shown;
use crate::preview::sources::{SourceTree, locate_meta};
use crate::reserved::Reservation;
use crate::{Code, Explain, GuestName};

/// A problem and its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{kind}", prefix(.place))]
pub struct MetaProblem {
    /// A JSON pointer (RFC 6901) such as `/routes/0/port`. Empty for the whole document.
    pub place: String,
    /// The problem.
    pub kind: MetaProblemKind,
}

/// The kind of a problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaProblemKind {
    /// Not JSON.
    NotJson {
        /// The parser's message, with line and column.
        message: String,
    },
    /// Larger than [`Meta::MAX_BYTES`].
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
    },
    /// A required field is missing.
    Missing,
    /// An unknown field.
    Unknown {
        /// A known field with a similar name.
        nearest: Option<&'static str>,
        /// All known fields.
        known: &'static [&'static str],
    },
    /// A value of the wrong type.
    Type {
        /// The expected type.
        expected: &'static str,
        /// The actual type.
        found: &'static str,
    },
    /// A list that must not be empty.
    Empty,
    /// A list with too many entries.
    TooMany {
        /// Number of entries.
        found: usize,
        /// Maximum number of entries.
        max: usize,
    },
    /// A number that is not a port.
    Port {
        /// The number as written.
        found: String,
    },
    /// A word that is not among the allowed ones.
    Word {
        /// The word.
        found: String,
        /// An allowed word that is similar.
        nearest: Option<&'static str>,
        /// All allowed words.
        known: &'static [&'static str],
    },
    /// A text that is not valid for its type.
    Text {
        /// The text and the broken rule.
        message: String,
        /// The remedy, with an example.
        remedy: &'static str,
    },
    /// An entry that duplicates an earlier one.
    Duplicate {
        /// The duplicate text.
        text: String,
        /// The place of the first entry.
        first: String,
    },
    /// A prefix of an extra host that is reserved.
    Reserved {
        /// The prefix.
        prefix: GuestName,
        /// The reason.
        reason: Reservation,
    },
    /// Further problems that are not listed.
    More {
        /// Their number.
        count: usize,
    },
}

impl MetaProblem {
    /// Returns the problem with its place in the configuration.
    #[must_use]
    pub fn located(&self, sources: &SourceTree) -> ConfigProblem {
        ConfigProblem {
            place: locate_meta(sources, &self.place),
            field: (!self.place.is_empty()).then(|| shown(&self.place)),
            message: self.kind.to_string(),
            remedy: Some(self.remedy()),
        }
    }

    /// Returns the remedy.
    #[must_use]
    pub fn remedy(&self) -> String {
        match &self.kind {
            MetaProblemKind::NotJson { .. } => {
                "write system.build.previewMeta with builtins.toJSON".to_owned()
            }
            MetaProblemKind::TooLarge { .. } => format!(
                "keep system.build.previewMeta below {} KiB",
                Meta::MAX_BYTES / 1024
            ),
            MetaProblemKind::Missing => "add it".to_owned(),
            MetaProblemKind::Unknown { nearest, known } => nearest.map_or_else(
                || format!("remove it; the known fields are {}", known.join(", ")),
                |field| format!("write '{field}', or remove it"),
            ),
            MetaProblemKind::Type { expected, .. } => format!("make it {expected}"),
            MetaProblemKind::Empty => {
                "add one, for example { path = \"/\"; port = 3000; }".to_owned()
            }
            MetaProblemKind::TooMany { max, .. } => format!("keep at most {max}"),
            MetaProblemKind::Port { .. } => {
                "write the number of the port that the app listens on, 1 to 65535".to_owned()
            }
            MetaProblemKind::Word { known, .. } => format!("write \"{}\"", known.join("\" or \"")),
            MetaProblemKind::Text { remedy, .. } => (*remedy).to_owned(),
            MetaProblemKind::Duplicate { .. } => "remove one of the two".to_owned(),
            MetaProblemKind::Reserved { prefix, .. } => {
                format!("choose another prefix, such as 'my-{prefix}'")
            }
            MetaProblemKind::More { .. } => "fix these first".to_owned(),
        }
    }
}

/// Returns the place and a colon; the empty string for the whole document.
fn prefix(place: &str) -> String {
    if place.is_empty() {
        String::new()
    } else {
        format!("{}: ", shown(place))
    }
}

impl fmt::Display for MetaProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson { message } => write!(f, "not JSON: {message}"),
            Self::TooLarge { bytes } => write!(f, "too large: {bytes} bytes"),
            Self::Missing => f.write_str("this required field is missing"),
            Self::Unknown { nearest: None, .. } => f.write_str("unknown field"),
            Self::Unknown {
                nearest: Some(field),
                ..
            } => write!(f, "unknown field; did you mean '{field}'?"),
            Self::Type { expected, found } => write!(f, "expected {expected}, found {found}"),
            Self::Empty => f.write_str("the list is empty"),
            Self::TooMany { found, max } => {
                write!(f, "the list has {found} entries; at most {max} are allowed")
            }
            Self::Port { found } => write!(f, "{found} is not a port"),
            Self::Word { found, nearest, .. } => {
                write!(f, "unknown value '{}'", shown(found))?;
                nearest.map_or(Ok(()), |word| write!(f, "; did you mean '{word}'?"))
            }
            Self::Text { message, .. } => f.write_str(message),
            Self::Duplicate { text, first } => {
                write!(f, "'{}' duplicates {first}", shown(text))
            }
            Self::Reserved { prefix, reason } => {
                write!(
                    f,
                    "the prefix '{prefix}' of extraHosts is reserved: {reason}"
                )
            }
            Self::More { count } => write!(f, "{count} more problems are not listed"),
        }
    }
}

/// Remedies for each kind of text.
pub(super) mod remedies {
    pub(in crate::preview::meta) const SERVICE: &str =
        "write the name of a service as in systemd.services, for example \"setup-app\"";
    pub(in crate::preview::meta) const PATH: &str =
        "write for example \"/\", \"/ws\" or \"/api/*\"";
    pub(in crate::preview::meta) const H2C_TIMEOUT: &str =
        "remove it: the clients of gRPC set deadlines themselves";
    pub(in crate::preview::meta) const TIMEOUT: &str = "write the seconds until the response begins: 1, 2, 5, 10, 15, 30, 60, 90, 120, 180, 300, 600, 1800 or 3600";
    pub(in crate::preview::meta) const HEALTH_PATH: &str = "write for example \"/health\"";
    pub(in crate::preview::meta) const SECRET: &str =
        "write the name of an environment variable, for example \"STRIPE_SECRET_KEY\"";
    pub(in crate::preview::meta) const PREFIX: &str =
        "write 1 to 22 of a-z, 0-9 and '-', for example \"landing\"";
}

// The remedy for a prefix contains the number.
const _: () = assert!(ExtraHost::MAX_PREFIX == 22);

/// All problems, as one failure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.summary())]
pub struct MetaProblems(pub Vec<MetaProblem>);

impl MetaProblems {
    /// Returns one line for each problem, with its remedy.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let line = |problem: &MetaProblem| format!("{problem} ({})", problem.remedy());
        self.0.iter().map(line).collect()
    }

    fn summary(&self) -> String {
        const SUBJECT: &str = "system.build.previewMeta in preview-config.nix is invalid";
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
            _ => "Fix these places and push again.".to_owned(),
        })
    }
}
