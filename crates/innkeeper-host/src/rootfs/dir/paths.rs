//! The paths of guests, and the names in the directory of trees.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;

use innkeeper_model::{GuestName, RetainedId};

use super::DirConfig;
use crate::rootfs::RootfsError;
use crate::{FileErrorExt, tree};

/// The prefix of retained trees.
const RETAINED: &str = ".retained-";

/// Parses the number in the name of a retained tree.
fn retained_number(name: &str) -> Option<RetainedId> {
    let id: RetainedId = name.strip_prefix(RETAINED)?.parse().ok()?;
    // Only the canonical name: no sign, no leading zeros.
    (id.0 > 0 && name == retained_name(id)).then_some(id)
}

/// Returns the name of a retained tree.
pub(super) fn retained_name(id: RetainedId) -> String {
    format!("{RETAINED}{id}")
}

/// The paths of one guest.
pub(in crate::rootfs) struct GuestPaths {
    pub(in crate::rootfs) guest: PathBuf,
    pub(in crate::rootfs) new: PathBuf,
    pub(super) gone: PathBuf,
}

impl GuestPaths {
    pub(in crate::rootfs) fn of(config: &DirConfig, name: &GuestName) -> Self {
        let at = |name: String| config.guests.join(name);
        Self {
            guest: at(name.to_string()),
            new: at(format!(".{name}.new")),
            gone: at(format!(".{name}.gone")),
        }
    }

    /// Moves the new tree to its final place. Existing snapshots stay.
    pub(super) fn commit(&self) -> Result<(), RootfsError> {
        if self.guest.is_dir() {
            fs::rename(self.new.join("rootfs"), self.rootfs()).on("create", self.rootfs())?;
            return Ok(tree::remove(&self.new)?);
        }
        Ok(fs::rename(&self.new, &self.guest).on("create", &self.guest)?)
    }

    pub(in crate::rootfs) fn rootfs(&self) -> PathBuf {
        self.guest.join("rootfs")
    }

    /// Reports whether the guest has a directory.
    pub(in crate::rootfs) fn exists(&self) -> bool {
        self.guest.is_dir()
    }
}

/// The kind of an entry of the directory of trees, by its name.
pub(super) enum Entry {
    Guest(GuestName),
    Retained(RetainedId),
    Leftover,
    Foreign,
}

impl Entry {
    pub(super) fn of(name: &OsStr) -> Self {
        let Some(name) = name.to_str() else {
            return Self::Foreign;
        };
        if let Ok(guest) = GuestName::parse(name) {
            return Self::Guest(guest);
        }
        if let Some(id) = retained_number(name) {
            return Self::Retained(id);
        }
        let leftover = name
            .strip_prefix('.')
            .and_then(|rest| {
                rest.strip_suffix(".new")
                    .or_else(|| rest.strip_suffix(".gone"))
            })
            .is_some_and(|guest| GuestName::parse(guest).is_ok());
        if leftover {
            Self::Leftover
        } else {
            Self::Foreign
        }
    }
}
