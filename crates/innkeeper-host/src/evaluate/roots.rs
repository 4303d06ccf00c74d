//! GC roots of evaluations: `<roots>/<key>/<name>`.
//!
//! Nix treats every link below `/nix/var/nix/gcroots` as a root, in subfolders too. A dangling root protects an object that
//! appears later. So a root is created before its object, and the object is never unprotected.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use innkeeper_facilities::EvaluationKey;
use innkeeper_model::StorePath;

use crate::{FileError, FileErrorExt, tree};

/// Name of the built closure's root.
pub(super) const CLOSURE: &str = "closure";

/// Points a root to an object, atomically.
pub(super) fn set(folder: &Path, name: &str, object: &StorePath) -> Result<(), FileError> {
    let root = folder.join(name);
    if fs::read_link(&root).is_ok_and(|target| target == object.as_path()) {
        return Ok(());
    }
    fs::create_dir_all(folder).on("create", folder)?;
    let temporary = folder.join(format!(".{name}.new"));
    tree::remove(&temporary)?;
    symlink(object.as_path(), &temporary).on("create", &temporary)?;
    fs::rename(&temporary, &root).on("create", &root)
}

/// Removes all roots of an evaluation except the closure's.
pub(super) fn keep_only_closure(folder: &Path) -> Result<(), FileError> {
    for entry in fs::read_dir(folder).on("list", folder)? {
        let entry = entry.on("list", folder)?;
        if entry.file_name() != CLOSURE {
            tree::remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Lists the evaluations that have roots.
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
