//! An error of an evaluation with its places, as Nix's `JSONLogger::logEI` writes it (src/libutil/logging.cc).

use serde::Deserialize;
use serde_json::Value;

/// A place as Nix prints it. The values are `null` if it is unknown.
#[derive(Default, Deserialize)]
pub(super) struct PlaceFields {
    #[serde(default)]
    file: Value,
    #[serde(default)]
    line: Value,
    #[serde(default)]
    column: Value,
}

/// A frame of a trace (with `--show-trace`).
#[derive(Deserialize)]
pub(super) struct TraceFields {
    #[serde(default)]
    pub(super) raw_msg: Value,
    #[serde(flatten)]
    pub(super) place: PlaceFields,
}

/// An error of an evaluation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NixError {
    /// The message, possibly of several lines.
    pub(crate) message: String,
    /// Its place and its call sites, the innermost first.
    pub(crate) frames: Vec<Frame>,
}

/// A place in a file, and its meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The file, or another text such as `(string)`.
    pub(crate) file: String,
    /// The line, from 1.
    pub(crate) line: u64,
    /// The column, from 1.
    pub(crate) column: u64,
    /// The meaning, such as `while evaluating 'f'`; empty for the error itself.
    pub(crate) message: String,
}

impl PlaceFields {
    /// Returns the place with a meaning. `None` if it is unknown.
    pub(super) fn frame(&self, message: String) -> Option<Frame> {
        Some(Frame {
            file: self.file.as_str()?.to_owned(),
            line: self.line.as_u64()?,
            column: self.column.as_u64()?,
            message,
        })
    }
}
