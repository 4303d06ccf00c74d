//! GC roots of evaluations: `<roots>/<key>/<what>`.
//!
//! Nix takes every link below `/nix/var/nix/gcroots` for a root, in folders too, and one that leads nowhere yet keeps
//! what appears there later. So a root is made before what it keeps, and there is no moment in between.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use innkeeper_model::StorePath;

use super::key::EvaluationKey;
use crate::{FileError, FileErrorExt, tree};

/// The root of what was built.
pub(super) const CLOSURE: &str = "closure";

/// Points a root to an object.
pub(super) fn set(folder: &Path, what: &str, object: &StorePath) -> Result<(), FileError> {
    let root = folder.join(what);
    if leads_to(folder, what, object) {
        return Ok(());
    }
    fs::create_dir_all(folder).on("create", folder)?;
    let aside = folder.join(format!(".{what}.new"));
    tree::remove(&aside)?;
    symlink(object.as_path(), &aside).on("create", &aside)?;
    fs::rename(&aside, &root).on("create", &root)
}

/// Whether a root leads to an object.
pub(super) fn leads_to(folder: &Path, what: &str, object: &StorePath) -> bool {
    fs::read_link(folder.join(what)).is_ok_and(|target| target == object.as_path())
}

/// Takes away all roots of an evaluation but that of what was built.
pub(super) fn settle(folder: &Path) -> Result<(), FileError> {
    for entry in fs::read_dir(folder).on("list", folder)? {
        let entry = entry.on("list", folder)?;
        if entry.file_name() != CLOSURE {
            tree::remove(&entry.path())?;
        }
    }
    Ok(())
}

/// The evaluations that have roots.
pub(super) fn list(roots: &Path) -> Result<Vec<EvaluationKey>, FileError> {
    let entries = match fs::read_dir(roots) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.on("list", roots)?,
    };
    let mut keys = Vec::new();
    for entry in entries {
        let name = entry.on("list", roots)?.file_name();
        keys.extend(
            name.to_str()
                .and_then(|name| EvaluationKey::parse(name).ok()),
        );
    }
    keys.sort();
    Ok(keys)
}
