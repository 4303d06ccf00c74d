//! The sides of a copy, as users write them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// A path of this machine, or of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A path of this machine.
    Local(PathBuf),
    /// A path of a guest.
    Guest {
        /// The guest's name, unchecked.
        name: String,
        path: OsString,
    },
}

impl Place {
    /// Parses `NAME:PATH` or `PATH`. As for scp(1), a path with a `/` before its first colon is one of this machine.
    pub(crate) fn parse(text: OsString) -> Self {
        let bytes = text.as_bytes();
        let Some(colon) = bytes.iter().position(|byte| *byte == b':') else {
            return Self::Local(text.into());
        };
        match std::str::from_utf8(&bytes[..colon]) {
            Ok(name) if !name.is_empty() && !name.contains('/') => Self::Guest {
                name: name.to_owned(),
                path: OsStr::from_bytes(&bytes[colon + 1..]).to_owned(),
            },
            _ => Self::Local(text.into()),
        }
    }
}
